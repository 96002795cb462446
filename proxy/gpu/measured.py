"""Joules of a step by measurement: the same composition is repeated until its error is small enough.

The counter is exact only at its edges. Between the first and the last edge of a run of repetitions the
joules are the difference of the counter, and the number of steps follows from the times of the steps, a step
that an edge divides counting in part. The standard error is that of the means of blocks of edges.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from proxy.gpu.composition import Composition, Entry, tokens
from proxy.gpu.device import Device, Edge
from proxy.gpu.engine import Runner
from proxy.gpu.shapley import Measured, shapley_by_kind
from proxy.units import NS_PER_SECOND, ns_from_seconds

TARGET_ERROR: Final = 0.01  # relative standard error at which a composition is measured well enough
_LEAST_SECONDS: Final = 0.4
_LEAST_EDGES: Final = 6
_BLOCKS: Final = 8
_WARM_UP_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class StepCost:
    """The cost of one step of a composition, back to back with others of its kind.

    ``seconds``: median length of a step; ``period_s``: mean time from one begin to the next.
    """

    joules: Measured
    seconds: float
    period_s: float
    steps: int


@dataclass(slots=True)
class CostMeter:
    """Measures compositions on a device, each once. ``most_seconds``: of one composition."""

    device: Device
    runner: Runner
    most_seconds: float = 2.0
    costs: dict[Composition, StepCost] = field(default_factory=dict)

    def measure(self, composition: Composition) -> StepCost:
        """Return the cost of a step, measured now if it was not before."""
        if composition not in self.costs:
            self.costs[composition] = self.repeat(composition)
        return self.costs[composition]

    def repeat(self, composition: Composition) -> StepCost:
        """Measure a composition anew."""
        works = composition.works()
        entries = [Entry(slot, tokens(work.tokens, slot), work.context) for slot, work in enumerate(works)]

        def run() -> list[int]:
            return self.runner.forward(entries)

        for _ in range(_WARM_UP_STEPS):
            self.device.step(works, run)
        first = self.device.now_ns()
        times: list[tuple[int, int]] = []
        joules = None
        while joules is None or joules.error > TARGET_ERROR * joules.mean:
            piece = self.device.now_ns() + ns_from_seconds(_LEAST_SECONDS)
            while self.device.now_ns() < piece:
                times.append(self.device.step(works, run))
            last = times[-1][1]
            joules = joules_per_step(self.device.edges(first, last), times) or joules
            if last - first > ns_from_seconds(self.most_seconds):
                break
        if joules is None:
            raise RuntimeError(
                f"the energy counter changed fewer than {_LEAST_EDGES} times in {self.most_seconds:.0f} s"
            )
        seconds = float(np.median([end - start for start, end in times])) / NS_PER_SECOND
        period_s = (times[-1][0] - times[0][0]) / (len(times) - 1) / NS_PER_SECOND
        return StepCost(joules, seconds, period_s, len(times))

    def plan(self, compositions: Sequence[Composition], seed: int = 1) -> None:
        """Measure compositions in random order, so that drift does not favour small or large coalitions."""
        left = [c for c in dict.fromkeys(compositions) if c not in self.costs]
        random.Random(seed).shuffle(left)
        for composition in left:
            self.measure(composition)

    def shapley(self, composition: Composition) -> list[Measured]:
        """Return the Shapley value of a member of each kind, by measuring every coalition."""
        self.plan(coalitions(composition))
        return shapley_by_kind(
            composition.counts, lambda counts: self.measure(composition.coalition(counts)).joules
        )


def coalitions(composition: Composition) -> list[Composition]:
    """Return every coalition of a composition but the empty one."""
    grid = np.ndindex(*(count + 1 for count in composition.counts))
    return [composition.coalition(counts) for counts in grid if any(counts)]


def joules_per_step(edges: Sequence[Edge], times: Sequence[tuple[int, int]]) -> Measured | None:
    """Return the joules of one step; None with too few edges."""
    if len(edges) < _LEAST_EDGES:
        return None
    at = np.array([edge.t_ns for edge in edges], float)
    joules = np.array([edge.mj for edge in edges]) / 1e3
    done = _steps_done(at, times)
    mean = float((joules[-1] - joules[0]) / (done[-1] - done[0]))
    blocks = np.linspace(0, len(edges) - 1, min(_BLOCKS, len(edges) - 1) + 1).astype(int)
    steps = np.diff(done[blocks])
    each = np.diff(joules[blocks]) / np.maximum(steps, 1e-9)
    error = float(np.std(each, ddof=1)) / math.sqrt(len(each))
    return Measured(mean, error)


def _steps_done(t_ns: np.ndarray, times: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the number of steps done at each time; from one start to the next a step passes evenly.

    The gap between two steps belongs to the step before it: its joules are part of what a step costs.
    """
    starts = np.array([start for start, _ in times] + [times[-1][1]], float)
    return np.asarray(np.interp(t_ns, starts, np.arange(len(starts))))
