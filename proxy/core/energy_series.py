"""Energy of one device as a function of time: counter or power readings in, joules of windows out.

The cumulative energy is a piecewise linear function through *edges*: the readings at which the counter
was seen to move (or, for power, every reading; the trapezoid between them). The first reading is a
baseline, never energy. What could not be measured is a :class:`~proxy.schema.Gap`, never zero:

* a counter that goes backwards was reset: the energy since the last reading is not known;
* power readings further apart than the gap limit cannot be integrated;
* what was used while a sensor was silent for too long cannot be placed: the next reading is a baseline.

A counter that stands still between two polls has not been updated yet, so such readings make no edge
(a window of no energy followed by one of double energy would be an artefact), for at most
``STILL_LIMIT_NS``. Sources: nvml.h (``nvmlDeviceGetTotalEnergyConsumption``), arXiv 2312.02741.
"""

import bisect
import math
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.events import Sample
from proxy.schema import Gap, Unknown
from proxy.units import NS_PER_SECOND, joules_from_mj, seconds_from_ns, watts_from_mw

STILL_LIMIT_NS: Final = 2 * NS_PER_SECOND
POWER_GAP_NS: Final = 2 * NS_PER_SECOND
POWER_GAP_PERIODS: Final = 10
_PERIOD_MEMORY: Final = 0.05


class EnergySeries:
    """Edges of one device; ``joules_at`` reads between them.

    Units: ``t_ns`` monotonic nanoseconds, energy in joules since the baseline, gaps excluded.
    """

    __slots__ = (
        "_edge_j",
        "_edge_t",
        "_last_mj",
        "_last_t",
        "_last_w",
        "_period_ns",
        "_silent",
        "gaps",
        "source",
        "watts",
    )

    def __init__(self) -> None:
        self._edge_t = array("q")
        self._edge_j = array("d")
        self._last_t: int | None = None
        self._last_mj: float | None = None
        self._last_w: float | None = None
        self._period_ns: float | None = None
        self._silent: str | None = None  # why readings were given up, until the next one
        self.gaps: list[Gap] = []
        self.watts: float | None = None
        self.source: str | None = None

    def feed(self, sample: Sample) -> bool:
        """Take a reading; true when it made an edge. A device keeps the kind of its first reading.

        One that is no amount (NaN, infinite, negative) is as if it had not been taken.
        """
        value = sample.energy_mj if sample.energy_mj is not None else sample.power_mw
        if value is None or not 0.0 <= value < math.inf:
            return False
        self.source = sample.source or self.source
        if sample.energy_mj is not None and self._last_w is None:
            return self._feed_counter(sample.t_ns, sample.energy_mj)
        if sample.power_mw is not None and self._last_mj is None:
            return self._feed_power(sample.t_ns, watts_from_mw(sample.power_mw))
        return False

    def _feed_counter(self, t_ns: int, millijoules: float) -> bool:
        last = self._last_mj
        self._last_t = t_ns
        if last is None:
            self._last_mj = millijoules
            self._push(t_ns, 0.0)
            return True
        start = self._edge_t[-1]
        if t_ns <= start:
            return False  # two readings of one instant: the second says nothing new
        if self._silent:
            self._last_mj = millijoules
            return self._begin_again(t_ns)
        if millijoules < last:
            self._last_mj = millijoules
            self.gaps.append(Gap(start, t_ns, Unknown.COUNTER_RESET))
            self._push(t_ns, self._edge_j[-1])
            return True
        if millijoules == last and t_ns - start < STILL_LIMIT_NS:
            return False
        joules = joules_from_mj(millijoules - last)
        self._last_mj = millijoules
        self.watts = joules / seconds_from_ns(t_ns - start)
        self._push(t_ns, self._edge_j[-1] + joules)
        return True

    def _feed_power(self, t_ns: int, watts: float) -> bool:
        last_w, last_t = self._last_w, self._last_t
        if last_t is not None and t_ns <= last_t:
            return False
        self._last_w, self._last_t, self.watts = watts, t_ns, watts
        if last_t is None or last_w is None:
            self._push(t_ns, 0.0)
            return True
        if self._silent:
            return self._begin_again(t_ns)
        length = t_ns - last_t
        limit = max(POWER_GAP_NS, POWER_GAP_PERIODS * (self._period_ns or 0.0))
        if length > limit:
            self.gaps.append(Gap(last_t, t_ns, Unknown.SAMPLING_GAP))
            self._push(t_ns, self._edge_j[-1])
            return True
        self._push(t_ns, self._edge_j[-1] + 0.5 * (watts + last_w) * seconds_from_ns(length))
        return True

    def _begin_again(self, t_ns: int) -> bool:
        """The first reading after a silence is a baseline; true when it made an edge."""
        start, reason = self._edge_t[-1], self._silent
        assert reason is not None
        if t_ns < start:
            return False  # it is of the silence itself
        self._silent = None
        if t_ns == start:
            return False
        if self.gaps and self.gaps[-1].end_ns == start and self.gaps[-1].reason == reason:
            start = self.gaps.pop().start_ns
        self.gaps.append(Gap(start, t_ns, reason))
        self._push(t_ns, self._edge_j[-1])
        return True

    def _push(self, t_ns: int, joules: float) -> None:
        if self._edge_t:
            length = t_ns - self._edge_t[-1]
            known = self._period_ns
            self._period_ns = length if known is None else known + _PERIOD_MEMORY * (length - known)
        self._edge_t.append(t_ns)
        self._edge_j.append(joules)

    def lose(self, t_ns: int, reason: str) -> None:
        """Give up waiting for readings until ``t_ns``: a gap from the last edge, or a longer one."""
        start = self._edge_t[-1]
        if t_ns > start:
            if self._silent == reason and self.gaps and self.gaps[-1].end_ns == start:
                start = self.gaps.pop().start_ns
            self.gaps.append(Gap(start, t_ns, reason))
            self._silent = reason
            self._push(t_ns, self._edge_j[-1])

    @property
    def first_ns(self) -> int | None:
        """Stamp of the oldest edge kept; None before the first reading."""
        return self._edge_t[0] if self._edge_t else None

    @property
    def edge_ns(self) -> int | None:
        """Stamp of the newest edge; None before the first reading."""
        return self._edge_t[-1] if self._edge_t else None

    @property
    def last_ns(self) -> int | None:
        """Stamp of the newest reading, edge or not."""
        return self._last_t

    @property
    def of_power(self) -> bool:
        """Whether the readings are power, integrated here, and not a counter of energy."""
        return self._last_w is not None

    @property
    def period_ns(self) -> float | None:
        """Running mean distance of edges: the counter's update period as seen."""
        return self._period_ns

    def in_gaps(self, edges: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the windows between ``edges`` (W + 1,) lie in a gap, (W,)."""
        inside = np.zeros(len(edges) - 1, bool)
        for gap in reversed(self.gaps):
            if gap.end_ns <= edges[0]:
                break
            inside |= (edges[:-1] < gap.end_ns) & (edges[1:] > gap.start_ns)
        return inside

    def edge_at_or_before(self, t_ns: int) -> int:
        """The newest edge at or before ``t_ns``, else the oldest kept."""
        return self._edge_t[max(bisect.bisect_right(self._edge_t, t_ns) - 1, 0)]

    def windows(self, start_ns: int, end_ns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Edges within [start_ns, end_ns], both ends included, and the cumulative joules at each.

        Ends that are no edges are interpolated, so that differences telescope over any cutting.
        """
        first = bisect.bisect_right(self._edge_t, start_ns)
        last = bisect.bisect_left(self._edge_t, end_ns)
        inner = self._edge_t[first:last]
        stamps = np.empty(len(inner) + 2, np.int64)
        stamps[0], stamps[-1] = start_ns, end_ns
        stamps[1:-1] = inner
        joules = np.empty(len(inner) + 2)
        joules[0], joules[-1] = self.joules_at(start_ns), self.joules_at(end_ns)
        joules[1:-1] = self._edge_j[first:last]
        return stamps, joules

    def joules_at(self, t_ns: int) -> float:
        """Cumulative joules at ``t_ns``; before the first and after the last edge: theirs."""
        index = bisect.bisect_right(self._edge_t, t_ns)
        if index == 0:
            return self._edge_j[0]
        if index == len(self._edge_t):
            return self._edge_j[-1]
        t0, t1 = self._edge_t[index - 1], self._edge_t[index]
        j0, j1 = self._edge_j[index - 1], self._edge_j[index]
        return j0 + (j1 - j0) * ((t_ns - t0) / (t1 - t0))

    def forget(self, t_ns: int) -> None:
        """Drop edges before the newest one at or before ``t_ns``."""
        index = bisect.bisect_right(self._edge_t, t_ns) - 1
        if index > 0:
            del self._edge_t[:index]
            del self._edge_j[:index]
