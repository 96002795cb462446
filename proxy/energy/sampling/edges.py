"""The updates (edges) of a cumulative counter: period, phase, and the edge that a reading shows. Pure.

A driver updates its energy counter every 20 to 100 ms. Between two updates it shows the energy used until the
last one, so that a reading is exact at the time of that edge, and at no other time: taken as of the time of
the call it would be wrong by up to one period's energy.

``measure_period`` estimates the period from a short series of fast polls. ``EdgeTracker`` then predicts the
edges and is corrected by occasional observations, like a phase-locked loop: the phase follows half of each
residual, and the period is the mean over all edges since a base that is up to ``_BASE_NS`` old. A tracker
also reports how certain its prediction is, because an edge may have drifted since it was last observed.
"""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from proxy.units import NS_PER_MS, NS_PER_SECOND

_MIN_CHANGES: Final = 3
_MISFIT_NS: Final = NS_PER_MS  # largest mean deviation of changes from a regular period
_STAMP_ERROR_NS: Final = NS_PER_MS // 2  # of an observed edge: half the longest interval of polls
_FIRST_GUARD_NS: Final = 2 * NS_PER_MS
_MIN_GUARD_NS: Final = NS_PER_MS // 2
MAX_GUARD_NS: Final = 4 * NS_PER_MS  # beyond it, measuring the period again is cheaper than searching
_BASE_NS: Final = 20 * NS_PER_SECOND  # longest base of the period's mean, because the period may drift
_PHASE_CORRECTION: Final = 0.5  # of the residual of an observed edge
_CLOSE_NS: Final = NS_PER_MS  # polls further apart do not locate an edge
_ENOUGH_NS: Final = 3 * NS_PER_MS  # distance to the nearest edge beyond which no later moment is better
_DOUBTFUL: Final = 2  # excess of missed over observed edges at which edges count as doubtful,
_LOST: Final = 5  # and as lost


def measure_period(changes_ns: list[int], polls: int) -> int | None:
    """Estimate the update period of a counter.

    The number of periods within the series is uncertain, because polls may miss a change. So the counts
    around the one of the median gap are tried, and the period with the smallest misfit is used.

    Args:
        changes_ns: Times at which the value was observed to change, ascending.
        polls: Number of polls.

    Returns:
        The period in nanoseconds. None if there are too few changes, if nearly every poll saw one (the period
        is shorter than the polling), or if the changes are not at multiples of a period.
    """
    if len(changes_ns) < _MIN_CHANGES or len(changes_ns) > polls * 0.7:
        return None
    gaps = sorted(b - a for a, b in itertools.pairwise(changes_ns))
    middle = gaps[len(gaps) // 2]
    periods = sum(round(gap / middle) for gap in gaps)
    span = changes_ns[-1] - changes_ns[0]
    candidates = [span / count for count in range(max(periods - 2, 1), periods + 3)]
    period = min(candidates, key=lambda p: _misfit(changes_ns, p))
    return round(period) if _misfit(changes_ns, period) < _MISFIT_NS else None


def _misfit(changes_ns: list[int], period: float) -> float:
    """Return the mean distance of changes from integer multiples of the period after the first, in ns."""
    first = changes_ns[0]
    return sum(abs((t - first + period / 2) % period - period / 2) for t in changes_ns) / len(changes_ns)


@dataclass(slots=True)
class EdgeTracker:
    """Predicts the edges of one counter; all times in nanoseconds.

    Poll around ``due``, within ``margin``; then call ``hit`` or ``missed``.

    Attributes:
        period_ns: Update period.
        edge_ns: Time of the last edge that was observed, corrected for noise.
        guard_ns: Recent deviation of observed edges from their predictions.
        misses: Excess of missed over observed edges.
        base_ns: An earlier edge, from which the period is measured.
        base_periods: Number of periods from there to the last edge.
    """

    period_ns: int
    edge_ns: int
    guard_ns: int = field(default=_FIRST_GUARD_NS)
    misses: int = 0
    base_ns: int = 0
    base_periods: int = 0

    def due(self, t_ns: int) -> int:
        """Return the first expected edge after ``t_ns``."""
        return self.last(t_ns) + self.period_ns

    def last(self, t_ns: int) -> int:
        """Return the last expected edge at or before ``t_ns``, the one that a reading at ``t_ns`` shows."""
        return self.edge_ns + (t_ns - self.edge_ns) // self.period_ns * self.period_ns

    def clearance(self, t_ns: int) -> int:
        """Return the distance of ``t_ns`` to the nearest expected edge."""
        after = (t_ns - self.edge_ns) % self.period_ns
        return min(after, self.period_ns - after)

    def is_clear(self, t_ns: int) -> bool:
        """Return whether it is certain which edge a reading at ``t_ns`` shows."""
        return not self.doubtful and self.clearance(t_ns) > self.margin(t_ns)

    def margin(self, t_ns: int) -> int:
        """Return the uncertainty of an edge near ``t_ns``; it grows with the time since one was seen."""
        base = max(self.base_periods, 1) * self.period_ns
        return self.guard_ns + max(t_ns - self.edge_ns, 0) * _STAMP_ERROR_NS // base

    @property
    def sure(self) -> bool:
        """Whether the edges are known well enough to be observed rarely."""
        return self.guard_ns <= _MIN_GUARD_NS and self.base_periods * self.period_ns >= 4 * NS_PER_SECOND

    @property
    def doubtful(self) -> bool:
        """Whether expected edges were missed more often than observed."""
        return self.misses >= _DOUBTFUL

    @property
    def lost(self) -> bool:
        """Whether the period must be measured again."""
        return self.misses >= _LOST

    def hit(self, before_ns: int, t_ns: int) -> None:
        """Add an observed edge: the value changed between two polls at ``before_ns`` and ``t_ns``.

        Ignored if the polls are too far apart to locate the edge.
        """
        if t_ns - before_ns > _CLOSE_NS:
            return
        seen = (before_ns + t_ns) // 2
        periods = max(1, round((seen - self.edge_ns) / self.period_ns))
        expected = self.edge_ns + periods * self.period_ns
        residual = seen - expected
        if abs(residual) > 2 * NS_PER_MS:  # too much for jitter: the driver was reloaded
            self.edge_ns = seen
            self.base_periods = 0
            self.misses += 1
            return
        self.misses = max(self.misses - 1, 0)
        self._measure(seen, periods)
        self.edge_ns = expected + round(_PHASE_CORRECTION * residual)
        self.guard_ns = max(_MIN_GUARD_NS, self.guard_ns // 2)

    def _measure(self, seen_ns: int, periods: int) -> None:
        """Set the period to the mean since the base; move a base that is too old to half its distance."""
        if not self.base_periods:
            self.base_ns = self.edge_ns
        self.base_periods += periods
        self.period_ns = round((seen_ns - self.base_ns) / self.base_periods)
        if seen_ns - self.base_ns > _BASE_NS:
            half = self.base_periods // 2
            self.base_ns += half * self.period_ns
            self.base_periods -= half

    def missed(self) -> None:
        """Report that no change was observed around an expected edge: the next search is wider."""
        self.misses += 1
        self.guard_ns = min(self.period_ns // 2, self.guard_ns * 2, MAX_GUARD_NS)


def clear_moment(trackers: Collection[EdgeTracker], t_ns: int) -> int:
    """Return when to read all counters at once: within one period from ``t_ns``, far from all edges.

    That is the first moment with a sufficient distance to all edges, or else the middle of the widest
    interval between edges.
    """
    if all(tracker.clearance(t_ns) >= _ENOUGH_NS for tracker in trackers):
        return t_ns
    end = t_ns + max(tracker.period_ns for tracker in trackers)
    edges = sorted(edge for tracker in trackers for edge in _edges(tracker, t_ns, end))
    best, widest = t_ns, 0
    for a, b in itertools.pairwise(edges):
        moment = max(t_ns, a + min((b - a) // 2, _ENOUGH_NS))
        width = min(moment - a, b - moment)
        if width > widest:
            best, widest = moment, width
            if widest >= _ENOUGH_NS:
                break
    return best


def _edges(tracker: EdgeTracker, start_ns: int, end_ns: int) -> range:
    """Return the expected edges from the last one before ``start_ns`` to the first one after ``end_ns``."""
    return range(tracker.last(start_ns), tracker.due(end_ns) + 1, tracker.period_ns)
