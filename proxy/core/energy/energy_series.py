"""Energy of one device as a function of time: counter and power readings in, joules of windows out.

The cumulative energy is a piecewise linear function through *edges*: the readings at which the counter
was seen to move (or, for power, every reading; the trapezoid between them). The first reading is a
baseline, never energy. Readings that cannot be true are left out (``plausible``). What could
not be measured is a :class:`~proxy.schema.Gap`, never zero:

* a counter that was reset or jumped: the energy since the last reading is not known;
* power readings further apart than the gap limit cannot be integrated;
* what was used while a sensor was silent for too long cannot be placed: the next reading is a baseline;
* a counter that stands still for too long, where power is not known either.

A counter that stands still between two polls has not been updated yet, so such readings make no edge
(a window of no energy followed by one of double energy would be an artefact). One that still stands while
power readings change, or for several of its periods, is stuck: from its last move on the energy is
integrated from power, until the counter has moved regularly for a while. Sources: nvml.h
(``nvmlDeviceGetTotalEnergyConsumption``), arXiv 2312.02741.
"""

import bisect
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.energy.plausible import GENERIC_WATTS, CounterFilter, Move, PowerFilter, is_amount
from proxy.core.events import Sample
from proxy.schema import Gap, Unknown
from proxy.units import NS_PER_SECOND, seconds_from_ns, watts_from_mw

POWER_GAP_NS: Final = 2 * NS_PER_SECOND
POWER_GAP_PERIODS: Final = 10
STILL_NS: Final = 2 * NS_PER_SECOND  # a counter that stands still so long beside power that changes is stuck,
STUCK_NS: Final = 5 * NS_PER_SECOND  # or so long whatever else is known;
STUCK_PERIODS: Final = 3  # both longer for a counter that is refreshed seldom
TRUSTED_NS: Final = 10 * NS_PER_SECOND  # a counter that was stuck is used again after moving for so long
_REGULAR_MOVES: Final = 3
_CHANGES: Final = 3  # of power, to say that it does not stand still
_STILL_READINGS: Final = 3  # two readings far apart do not say that the counter stood still
_POWER_KEPT: Final = 4096
_PERIOD_MEMORY: Final = 0.05


class EnergySeries:
    """Edges of one device; ``joules_at`` reads between them.

    Units: ``t_ns`` monotonic nanoseconds, energy in joules since the baseline, gaps excluded.
    """

    __slots__ = (
        "_counter",
        "_edge_j",
        "_edge_t",
        "_last_t",
        "_last_w",
        "_period_ns",
        "_power",
        "_power_filter",
        "_rejected_last",
        "_run",
        "_silent",
        "_still",
        "_stuck_moved_t",
        "fell_back",
        "gaps",
        "of_power",
        "source",
        "watts",
    )

    def __init__(self, max_watts: float | None = None) -> None:
        """``max_watts``: most that the device can draw; None where it is not known."""
        bound = max_watts or GENERIC_WATTS
        self._edge_t = array("q")
        self._edge_j = array("d")
        self._counter = CounterFilter(bound)
        self._power_filter = PowerFilter(bound)
        self._power: list[tuple[int, float]] = []  # beside a counter, since its last move
        self._last_t: int | None = None
        self._last_w: float | None = None
        self._run: list[int] = []  # while power is used: when the counter moved, without standing still
        self._stuck_moved_t = 0
        self._period_ns: float | None = None
        self._silent: str | None = None  # why readings were given up, until the next one
        self._still = 0  # readings of the counter since its last move
        self._rejected_last = False
        self.gaps: list[Gap] = []
        self.of_power = False  # whether power is integrated here, and no counter of energy read
        self.fell_back = False  # whether it ever was so because the counter stood still
        self.watts: float | None = None
        self.source: str | None = None

    @property
    def rejected(self) -> int:
        """Readings that were left out because they cannot be true."""
        return self._counter.rejected + self._power_filter.rejected

    def feed(self, sample: Sample) -> bool:
        """Take a reading of the counter, of power, or of both; true when it made an edge.

        The counter is preferred, power is used where there is none or it is stuck.
        """
        made = False
        if sample.energy_mj is not None:
            self.source = sample.source or self.source
            if is_amount(sample.energy_mj):
                made = self._feed_counter(sample.t_ns, sample.energy_mj)
            else:
                self._counter.rejected += 1
                self._rejected_last = True
        if sample.power_mw is not None:
            self.source = sample.source or self.source
            if is_amount(sample.power_mw):
                for t_ns, watts in self._power_filter.feed(sample.t_ns, watts_from_mw(sample.power_mw)):
                    made |= self._feed_watts(t_ns, watts)
            else:
                self._power_filter.rejected += 1
                self._rejected_last |= self.of_power
        return made

    def _feed_counter(self, t_ns: int, millijoules: float) -> bool:
        if self._counter.base_mj is None:
            self._counter.rebase(t_ns, millijoules)
            if not self._edge_t:
                self._last_t = t_ns
                return self._push(t_ns, 0.0)
        if self.of_power:
            return self._watch_counter(t_ns, millijoules)
        start = self._edge_t[-1]
        if t_ns <= start:
            return False  # two readings of one instant: the second says nothing new
        if self._silent:
            return self._after_silence(t_ns, millijoules)
        moves = self._counter.feed(t_ns, millijoules)
        self._rejected_last = moves is None
        if moves is not None:
            self._last_t = t_ns
        if not moves:
            self._still += moves is not None
            return self._stands_still(t_ns)
        self._still = 0
        for move in moves:
            self._take(move)
        self._power = [reading for reading in self._power if reading[0] > t_ns]
        return True

    def _after_silence(self, t_ns: int, millijoules: float) -> bool:
        self._last_t = t_ns
        if self._silent == Unknown.COUNTER_STUCK and millijoules == self._counter.base_mj:
            self.lose(t_ns, Unknown.COUNTER_STUCK)
            return True
        if self._silent == Unknown.COUNTER_STUCK and self._period_ns is None:
            self._period_ns = t_ns - self._stuck_moved_t  # it is refreshed seldom
        self._counter.rebase(t_ns, millijoules)
        return self._begin_again(t_ns)

    def _take(self, move: Move) -> None:
        start = self._edge_t[-1]
        if move.gap is not None:
            self.gaps.append(Gap(start, move.t_ns, move.gap))
        else:
            self.watts = move.joules / seconds_from_ns(move.t_ns - start)
        self._push(move.t_ns, self._edge_j[-1] + move.joules)

    def _stands_still(self, t_ns: int) -> bool:
        """The counter shows nothing new at ``t_ns``: true where it is given up, for power or for a gap."""
        start = self._edge_t[-1]
        periods = STUCK_PERIODS * (self._period_ns or 0.0)
        still = t_ns - start
        if still < max(STILL_NS, periods):
            return False
        stuck = still >= max(STUCK_NS, periods)
        changes = sum(a[1] != b[1] for a, b in zip(self._power, self._power[1:], strict=False))
        if changes >= _CHANGES or (stuck and self._power):
            self._fall_back(start)
            return True
        if stuck and not self._rejected_last and self._still >= _STILL_READINGS:
            self._stuck_moved_t = start
            self.lose(t_ns, Unknown.COUNTER_STUCK)
            return True
        return False

    def _fall_back(self, start_ns: int) -> None:
        """Go on by power since the counter's last move; its first reading stands for the time before it."""
        self.of_power = self.fell_back = True
        power, self._power = self._power, []
        first_t, watts = power[0]
        if first_t - start_ns <= POWER_GAP_NS:
            power.insert(0, (start_ns, watts))
        else:
            self.gaps.append(Gap(start_ns, first_t, Unknown.SAMPLING_GAP))
            self._push(first_t, self._edge_j[-1])
        self._last_t, self._last_w = power[0]
        for t_ns, watts in power[1:]:
            self._feed_power(t_ns, watts)

    def _watch_counter(self, t_ns: int, millijoules: float) -> bool:
        """While power is used: go back to the counter once it has moved for long enough, true if so."""
        moves, run = self._counter.feed(t_ns, millijoules), self._run
        if not moves:
            if run and t_ns - run[-1] > max(STILL_NS, STUCK_PERIODS * _mean_distance(run)):
                run.clear()  # it stands still again
            return False
        run.append(t_ns)
        length = t_ns - run[0]
        regular = len(run) > _REGULAR_MOVES and length >= TRUSTED_NS
        if not regular or t_ns <= self._edge_t[-1] or self._silent:
            return False
        self._feed_power(t_ns, self._last_w or 0.0)  # the power up to here is that of its last reading
        self.of_power, self._last_w = False, None
        self._period_ns = _mean_distance(run)
        run.clear()
        self._still = 0
        return True

    def _feed_watts(self, t_ns: int, watts: float) -> bool:
        if not self._edge_t:
            self.of_power = True
        if self.of_power:
            self._rejected_last = False
            return self._feed_power(t_ns, watts)
        if self._silent:
            if t_ns <= self._edge_t[-1]:
                return False
            self.of_power = self.fell_back = True
            self._last_t, self._last_w = self._edge_t[-1], watts
            return self._feed_power(t_ns, watts)
        if t_ns > self._edge_t[-1]:
            self._power.append((t_ns, watts))
            del self._power[:-_POWER_KEPT]
        return self._stands_still(t_ns)

    def _feed_power(self, t_ns: int, watts: float) -> bool:
        last_w, last_t = self._last_w, self._last_t
        if last_t is not None and t_ns <= last_t:
            return False
        self._last_w, self._last_t, self.watts = watts, t_ns, watts
        if last_t is None or last_w is None:
            return self._push(t_ns, 0.0)
        if self._silent:
            return self._begin_again(t_ns)
        length = t_ns - last_t
        limit = max(POWER_GAP_NS, POWER_GAP_PERIODS * (self._period_ns or 0.0))
        if length > limit:
            self.gaps.append(Gap(last_t, t_ns, Unknown.SAMPLING_GAP))
            return self._push(t_ns, self._edge_j[-1])
        return self._push(t_ns, self._edge_j[-1] + 0.5 * (watts + last_w) * seconds_from_ns(length))

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
        return self._push(t_ns, self._edge_j[-1], learn=reason != Unknown.COUNTER_STUCK)

    def _push(self, t_ns: int, joules: float, *, learn: bool = True) -> bool:
        """Add an edge; with ``learn``, update the period by its distance to the last one. Return True."""
        if self._edge_t and learn:
            length = t_ns - self._edge_t[-1]
            known = self._period_ns
            self._period_ns = length if known is None else known + _PERIOD_MEMORY * (length - known)
        self._edge_t.append(t_ns)
        self._edge_j.append(joules)
        return True

    def end(self) -> None:
        """No more readings will come: those that were not decided on are a gap.

        One before the last edge is within a gap already: the wait for a decision was given up (:meth:`lose`).
        """
        for move in self._counter.end() if not self.of_power else ():
            if move.t_ns > self._edge_t[-1]:
                self._take(move)

    def lose(self, t_ns: int, reason: str) -> None:
        """Give up waiting for readings until ``t_ns``: a gap from the last edge, or a longer one."""
        start = self._edge_t[-1]
        if t_ns > start:
            if self._silent == reason and self.gaps and self.gaps[-1].end_ns == start:
                start = self.gaps.pop().start_ns
            self.gaps.append(Gap(start, t_ns, reason))
            self._silent = reason
            self._push(t_ns, self._edge_j[-1], learn=reason != Unknown.COUNTER_STUCK)

    @property
    def silence(self) -> str:
        """The reason of a silence that is beginning: readings that are none, or no readings."""
        return Unknown.IMPLAUSIBLE_READINGS if self._rejected_last else Unknown.NO_SAMPLES

    def notes(self) -> tuple[str, ...]:
        """Return remarks on the readings, for the account of the device."""
        notes = []
        if self.fell_back:
            now = "by power" if self.of_power else "by the counter again"
            notes.append(f"the energy counter stood still beside power: now read {now}")
        if self.rejected:
            notes.append(f"{self.rejected} readings that cannot be true were left out")
        return tuple(notes)

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


def _mean_distance(stamps: list[int]) -> float:
    """Mean distance of stamps in order; 0 for one alone."""
    return (stamps[-1] - stamps[0]) / max(len(stamps) - 1, 1)
