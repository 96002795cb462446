"""Checks of the measured truth that need no model: the same thing measured twice, in two ways."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from proxy.gpu.composition import Composition, Entry, Work
from proxy.gpu.engine import Runner
from proxy.gpu.measured import CostMeter, StepCost

# Four decoding requests of different context: the largest of the sets in which each is of a kind of its own.
EXAMPLE: Final = Composition.of([Work(1, 64), Work(1, 128), Work(1, 256), Work(1, 512)])


@dataclass(frozen=True, slots=True)
class Repeated:
    """Two measurements of what should be equal: their joules, relative difference, and its standard error."""

    what: str
    first: float
    second: float
    difference: float
    error: float


def checks(meter: CostMeter) -> list[Repeated]:
    """Return all checks.

    *A/A*: a composition measured again. *Other places*: the same requests in other cache slots and in the
    opposite order. *Shares*: the sum of the measured Shapley values against a new measurement of the step.
    """
    first = meter.measure(EXAMPLE)
    again = meter.repeat(EXAMPLE)
    moved = replace(meter, runner=_Moved(meter.runner), costs={}).repeat(EXAMPLE)
    values = meter.shapley(EXAMPLE)
    total = sum(v.mean * count for v, count in zip(values, EXAMPLE.counts, strict=True))
    shares = replace(first, joules=replace(first.joules, mean=total))
    return [
        _repeated("A/A: the step again", first, again),
        _repeated("the same requests in other places", first, moved),
        _repeated("sum of the shares, and the step again", shares, again),
    ]


def _repeated(what: str, first: StepCost, second: StepCost) -> Repeated:
    a, b = first.joules, second.joules
    error = (a.error**2 + b.error**2) ** 0.5 / a.mean
    return Repeated(what, a.mean, b.mean, b.mean / a.mean - 1.0, error)


class _Moved:
    """A runner that gives each request another slot, and computes them in the opposite order."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.slots, self.length = runner.slots, runner.length

    def forward(self, entries: Sequence[Entry]) -> list[int]:
        """Compute the step from the last slots down."""
        moved = [replace(e, slot=self.slots - 1 - e.slot) for e in reversed(entries)]
        return self._runner.forward(moved)
