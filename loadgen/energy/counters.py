"""Joules of a span from counter readings of this machine's devices. Pure.

A counter stands still between its own updates (20 to 100 ms apart), so a reading is worth something only
where it changed: energy at any time is interpolated between these edges. Nothing before the first edge or
after the last one is made up.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from loadgen.results.records import EnergyTotals
from proxy.units import NS_PER_SECOND

_MJ_PER_JOULE = 1000.0


@dataclass(slots=True)
class Counter:
    """One device's cumulative counter: edges as (nanoseconds of our monotonic clock, millijoules)."""

    name: str
    _last_mj: int | None = None
    _before_ns: int = 0
    _times: list[int] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    gap: str | None = None

    def read(self, t_ns: int, value_mj: int) -> None:
        """A reading; the edge lies between it and the one before, so it is put in the middle."""
        if self._last_mj is not None and value_mj < self._last_mj:
            self.gap = f"{self.name}: the counter went backwards (reset)"
        if self._last_mj is not None and value_mj > self._last_mj:
            self._times.append((self._before_ns + t_ns) // 2)
            self._values.append(float(value_mj))
        self._last_mj, self._before_ns = value_mj, t_ns

    def covers(self, t_ns: int) -> bool:
        """Whether an edge lies at or after ``t_ns``."""
        return bool(self._times) and self._times[-1] >= t_ns

    def at_mj(self, t_ns: int) -> float | None:
        """The counter at ``t_ns``; None outside what was seen."""
        after = bisect_right(self._times, t_ns)
        if after == 0 or (after == len(self._times) and self._times[-1] < t_ns):
            return None
        if after == len(self._times):
            return self._values[-1]
        t0, t1 = self._times[after - 1], self._times[after]
        v0, v1 = self._values[after - 1], self._values[after]
        return v0 + (v1 - v0) * (t_ns - t0) / (t1 - t0)


def between(counters: list[Counter], start_ns: int, end_ns: int, source: str) -> EnergyTotals | str:
    """Energy over [start_ns, end_ns) of all devices, or the reason why it is not known.

    Devices alone cannot say which joules were whose: there are no parts.
    """
    joules = 0.0
    for counter in counters:
        if counter.gap:
            return counter.gap
        first, last = counter.at_mj(start_ns), counter.at_mj(end_ns)
        if first is None or last is None:
            return f"{counter.name}: the counter did not change on both sides of the window"
        joules += (last - first) / _MJ_PER_JOULE
    if not counters or end_ns <= start_ns:
        return "no devices" if not counters else "the window is empty"
    return EnergyTotals(joules=joules, seconds=(end_ns - start_ns) / NS_PER_SECOND, source=source, parts={})
