"""Joules of a time span from the energy counters of local devices. Pure.

A counter is constant between its own updates (20 to 100 ms apart), so that only readings at which it changed
(edges) are informative. Energy at any time is interpolated linearly between edges. Before the first edge and
after the last one it is unknown.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from loadgen.results.records import EnergyTotals
from proxy.units import NS_PER_SECOND

_MJ_PER_JOULE = 1000.0


@dataclass(slots=True)
class Counter:
    """The cumulative counter of one device: edges as (local monotonic nanoseconds, millijoules)."""

    name: str
    _last_mj: int | None = None
    _before_ns: int = 0
    _times: list[int] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    gap: str | None = None

    def read(self, t_ns: int, value_mj: int) -> None:
        """Add a reading; its edge is placed midway between it and the reading before."""
        if self._last_mj is not None and value_mj < self._last_mj:
            self.gap = f"{self.name}: the counter went backwards (reset)"
        if self._last_mj is not None and value_mj > self._last_mj:
            self._times.append((self._before_ns + t_ns) // 2)
            self._values.append(float(value_mj))
        self._last_mj, self._before_ns = value_mj, t_ns

    def covers(self, t_ns: int) -> bool:
        """Return whether there is an edge at or after ``t_ns``."""
        return bool(self._times) and self._times[-1] >= t_ns

    def at_mj(self, t_ns: int) -> float | None:
        """Return the counter at ``t_ns`` in millijoules; None before the first and after the last edge."""
        after = bisect_right(self._times, t_ns)
        if after == 0 or (after == len(self._times) and self._times[-1] < t_ns):
            return None
        if after == len(self._times):
            return self._values[-1]
        t0, t1 = self._times[after - 1], self._times[after]
        v0, v1 = self._values[after - 1], self._values[after]
        return v0 + (v1 - v0) * (t_ns - t0) / (t1 - t0)


def between(counters: list[Counter], start_ns: int, end_ns: int, source: str) -> EnergyTotals | str:
    """Return the energy of all devices over [start_ns, end_ns), or the reason why it is unknown.

    There are no parts, since devices alone cannot attribute joules to requests.
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
