"""Arrival processes: the time of the k-th arrival, reproducible by seed. Pure.

Every process is a deterministic sequence of absolute times, drawn in blocks from one
``numpy.random.Generator``; 0 is a valid seed. Times are sums of gaps or closed forms, never "now + gap", so
delays of the sender do not accumulate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from proxy.inputs import parse_number
from proxy.units import NS_PER_SECOND

if TYPE_CHECKING:  # numpy takes half of the start-up time, and constant arrivals do not need it
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_BLOCK = 1024
# Beyond these limits a schedule consists of bursts only, or its nanoseconds overflow 64 bits.
_LEAST_CV, _MOST_CV = 0.01, 100.0
_LEAST_RATE, _MOST_RATE = 1e-6, 1e6
_LEAST_PERIOD_S, _MOST_PERIOD_S = 1e-3, 1e6


class Arrivals(Protocol):
    """A sequence of arrival times."""

    def at_ns(self, index: int) -> int | None:
        """Return the time of arrival ``index`` since the start, nanoseconds; None after the last one."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One arrival every 1/rate seconds, the first at zero."""

    rate: float

    def at_ns(self, index: int) -> int:
        """Return index/rate, which accumulates no rounding errors."""
        return round(index * NS_PER_SECOND / self.rate)


@dataclass(slots=True)
class Renewal:
    """Arrivals with independent gamma gaps of mean 1/rate; ``cv`` 1 is Poisson.

    Burstiness as coefficient of variation: shape = 1/cv^2, scale = cv^2/rate.
    """

    rate: float
    cv: float
    seed: int
    _times: list[int] = field(default_factory=list)
    _last: float = 0.0
    _rng: "np.random.Generator" = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np  # noqa: PLC0415

        self._rng = np.random.default_rng([self.seed, 1])

    def at_ns(self, index: int) -> int:
        """Return the sum of the first ``index + 1`` gaps."""
        while index >= len(self._times):
            times = self._last + self._gaps().cumsum()
            self._last = float(times[-1])
            self._times.extend((times * NS_PER_SECOND).round().astype(int).tolist())
        return self._times[index]

    def _gaps(self) -> "Floats":
        if self.cv == 1:
            return self._rng.exponential(1 / self.rate, _BLOCK)
        shape = 1 / self.cv**2
        return self._rng.gamma(shape, 1 / (self.rate * shape), _BLOCK)


@dataclass(slots=True)
class Varying:
    """Poisson arrivals at a varying rate, by inversion of the mean function (Cinlar 1975).

    ``inverse(mass)`` returns the time in seconds by which ``mass`` arrivals are expected. Applied to the
    arrivals of a process of rate 1, it yields the process of the varying rate.
    """

    inverse: Callable[[float], float]
    seed: int
    _unit: Renewal = field(init=False)

    def __post_init__(self) -> None:
        self._unit = Renewal(1.0, 1.0, self.seed)

    def at_ns(self, index: int) -> int | None:
        """Return the inverted unit-rate time; None if the expected number never reaches it."""
        seconds = self.inverse(self._unit.at_ns(index) / NS_PER_SECOND)
        return None if math.isinf(seconds) else round(seconds * NS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals at recorded times, ascending nanoseconds."""

    times_ns: Sequence[int]

    def at_ns(self, index: int) -> int | None:
        """Return the recorded time; None after the last one."""
        return self.times_ns[index] if index < len(self.times_ns) else None


def ramp(start: float, end: float, seconds: float, seed: int) -> Varying:
    """Return Poisson arrivals with a rate that changes linearly from ``start`` to ``end`` and then stays."""
    slope = (end - start) / seconds
    total = (start + end) / 2 * seconds

    def inverse(mass: float) -> float:
        if mass >= total:
            return seconds + (mass - total) / end if end else math.inf
        if slope == 0:
            return mass / start
        # The root of slope/2 t^2 + start t = mass, in the form without cancellation near t = 0.
        return 2 * mass / (start + math.sqrt(start * start + 2 * slope * mass))

    return Varying(inverse, seed)


def sine(rate: float, depth: float, period: float, seed: int) -> Varying:
    """Return Poisson arrivals with rate ``rate * (1 + depth * sin(2 pi t / period))``, 0 <= depth <= 1."""
    turn = 2 * math.pi / period

    def mass(t: float) -> float:
        return rate * (t + depth / turn * (1 - math.cos(turn * t)))

    def inverse(target: float) -> float:
        low = max(0.0, target / rate - 2 * depth / turn)
        high = target / rate
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if mass(middle) < target else (low, middle)
        return high

    return Varying(inverse, seed)


def parse_arrivals(text: str) -> tuple[str, tuple[float, ...]]:
    """Parse ``poisson``, ``constant``, ``gamma:CV``, ``ramp:A..B``, ``sine:DEPTH,PERIOD``.

    ``trace:FILE`` has no numbers. Raises ``ValueError`` with the valid forms.
    """
    kind, _, rest = text.partition(":")
    wrong = ValueError(
        f"--arrivals {text!r}: write poisson, constant, gamma:CV (gamma:2), ramp:A..B (ramp:1..64),"
        " sine:DEPTH,PERIOD_SECONDS (sine:0.5,20) or trace:FILE; CV from 0.01 to 100, A and B from 0 to"
        " 1,000,000 and one of them above 0.000001, PERIOD from 0.001 to 1,000,000"
    )
    if kind in {"poisson", "constant"} and not rest:
        return kind, ()
    if kind == "trace" and rest.strip():
        return kind, ()
    separator = {"gamma": None, "ramp": "..", "sine": ","}.get(kind, "")
    if separator == "":
        raise wrong
    try:
        numbers = tuple(parse_number(part) for part in (rest.split(separator) if separator else [rest]))
    except ValueError:
        raise wrong from None
    good = {
        "gamma": len(numbers) == 1 and _LEAST_CV <= numbers[0] <= _MOST_CV,
        "ramp": len(numbers) == 2 and min(numbers) >= 0 and _LEAST_RATE <= max(numbers) <= _MOST_RATE,
        "sine": len(numbers) == 2
        and 0 <= numbers[0] <= 1
        and _LEAST_PERIOD_S <= numbers[-1] <= _MOST_PERIOD_S,
    }
    if not good[kind] or not all(math.isfinite(number) for number in numbers):
        raise wrong
    return kind, numbers


def make_arrivals(text: str, rate: float, seed: int, seconds: float | None) -> Arrivals:
    """Return the process of ``--arrivals`` at ``rate`` per second (a ramp has its own rates)."""
    kind, numbers = parse_arrivals(text)
    if kind == "constant":
        return Constant(rate)
    if kind == "gamma":
        return Renewal(rate, numbers[0], seed)
    if kind == "ramp":
        return ramp(numbers[0], numbers[1], seconds or 60.0, seed)
    if kind == "sine":
        return sine(rate, numbers[0], numbers[1], seed)
    return Renewal(rate, 1.0, seed)
