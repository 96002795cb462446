"""A counter's own update edges: period, phase, and which edge a reading shows. Pure.

A cumulative counter steps every 20-100 ms. Between two steps it shows the energy used until the last one,
so a reading is exact at the stamp of that edge, and nowhere else. Fed with the stamps between which the
value was seen to change, a tracker predicts the edges.
"""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from proxy.units import NS_PER_MS, NS_PER_SECOND

_MIN_CHANGES: Final = 3
_MISFIT_NS: Final = NS_PER_MS
_STAMP_ERROR_NS: Final = NS_PER_MS // 2  # of an edge that was seen
_FIRST_GUARD_NS: Final = 2 * NS_PER_MS
_MIN_GUARD_NS: Final = NS_PER_MS // 2
MAX_GUARD_NS: Final = 4 * NS_PER_MS  # further off, measuring anew is cheaper than looking
_BASE_NS: Final = 20 * NS_PER_SECOND  # longest base of the period's measurement: it may drift
_PHASE_CORRECTION: Final = 0.5
_CLOSE_NS: Final = NS_PER_MS
_ENOUGH_NS: Final = 3 * NS_PER_MS  # so far from every edge, a later moment is no better
_DOUBTFUL: Final = 2  # so many more times nothing than an edge, where one was expected,
_LOST: Final = 5  # and so many for sure


def measure_period(changes_ns: list[int], polls: int) -> int | None:
    """Update period in ns of the stamps of changes seen in ``polls`` fast polls.

    None when too few changes were seen, when nearly every poll saw one (finer than the polling), and when
    the changes are not at whole periods of one another.
    """
    if len(changes_ns) < _MIN_CHANGES or len(changes_ns) > polls * 0.7:
        return None
    gaps = sorted(b - a for a, b in itertools.pairwise(changes_ns))
    middle = gaps[len(gaps) // 2]
    whole = sum(round(gap / middle) for gap in gaps)
    span = changes_ns[-1] - changes_ns[0]
    candidates = [span / count for count in range(max(whole - 2, 1), whole + 3)]
    period = min(candidates, key=lambda p: _misfit(changes_ns, p))
    return round(period) if _misfit(changes_ns, period) < _MISFIT_NS else None


def _misfit(changes_ns: list[int], period: float) -> float:
    """Mean distance of changes from whole periods after the first."""
    first = changes_ns[0]
    return sum(abs((t - first + period / 2) % period - period / 2) for t in changes_ns) / len(changes_ns)


@dataclass(slots=True)
class EdgeTracker:
    """Follows the edges: ``due`` says when to look, ``hit`` and ``missed`` take what was seen.

    ``guard_ns`` is how far from its place an edge was found of late.
    """

    period_ns: int
    edge_ns: int
    guard_ns: int = field(default=_FIRST_GUARD_NS)
    misses: int = 0
    base_ns: int = 0  # an edge so many periods ago, from which the period is measured
    base_periods: int = 0

    def due(self, t_ns: int) -> int:
        """The first expected edge after ``t_ns``."""
        return self.last(t_ns) + self.period_ns

    def last(self, t_ns: int) -> int:
        """The last expected edge at or before ``t_ns``: what a reading at ``t_ns`` shows."""
        return self.edge_ns + (t_ns - self.edge_ns) // self.period_ns * self.period_ns

    def clearance(self, t_ns: int) -> int:
        """Distance of ``t_ns`` to the nearest expected edge."""
        after = (t_ns - self.edge_ns) % self.period_ns
        return min(after, self.period_ns - after)

    def is_clear(self, t_ns: int) -> bool:
        """Whether it is certain which edge a reading at ``t_ns`` shows."""
        return not self.doubtful and self.clearance(t_ns) > self.margin(t_ns)

    def margin(self, t_ns: int) -> int:
        """How far from its place the edge at ``t_ns`` may be: more, the longer none was seen."""
        base = max(self.base_periods, 1) * self.period_ns
        return self.guard_ns + max(t_ns - self.edge_ns, 0) * _STAMP_ERROR_NS // base

    @property
    def sure(self) -> bool:
        """Whether the edges are known well enough to be looked at seldom."""
        return self.guard_ns <= _MIN_GUARD_NS and self.base_periods * self.period_ns >= 4 * NS_PER_SECOND

    @property
    def doubtful(self) -> bool:
        """Edges were not where expected more often than they were."""
        return self.misses >= _DOUBTFUL

    @property
    def lost(self) -> bool:
        """Edges are not where they were: the period must be measured again."""
        return self.misses >= _LOST

    def hit(self, before_ns: int, t_ns: int) -> None:
        """The value changed between two polls at ``before_ns`` and ``t_ns``; far apart tells little."""
        if t_ns - before_ns > _CLOSE_NS:
            return
        seen = (before_ns + t_ns) // 2
        periods = max(1, round((seen - self.edge_ns) / self.period_ns))
        expected = self.edge_ns + periods * self.period_ns
        residual = seen - expected
        if abs(residual) > 2 * NS_PER_MS:  # not jitter: the driver was reloaded
            self.edge_ns = seen
            self.base_periods = 0
            self.misses += 1
            return
        self.misses = max(self.misses - 1, 0)
        self._measure(seen, periods)
        self.edge_ns = expected + round(_PHASE_CORRECTION * residual)
        self.guard_ns = max(_MIN_GUARD_NS, self.guard_ns // 2)

    def _measure(self, seen_ns: int, periods: int) -> None:
        """The period over all edges since the base, which follows at a distance."""
        if not self.base_periods:
            self.base_ns = self.edge_ns
        self.base_periods += periods
        self.period_ns = round((seen_ns - self.base_ns) / self.base_periods)
        if seen_ns - self.base_ns > _BASE_NS:
            half = self.base_periods // 2
            self.base_ns += half * self.period_ns
            self.base_periods -= half

    def missed(self) -> None:
        """No change in the window looked at: look wider next time."""
        self.misses += 1
        self.guard_ns = min(self.period_ns // 2, self.guard_ns * 2, MAX_GUARD_NS)


def clear_moment(trackers: Collection[EdgeTracker], t_ns: int) -> int:
    """When to read all counters at once, from ``t_ns`` to one period later: far from everyone's edges.

    The first moment that is far enough from all, else the middle of the widest span between edges.
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
    """Expected edges from the last one before ``start_ns`` to the first one after ``end_ns``."""
    return range(tracker.last(start_ns), tracker.due(end_ns) + 1, tracker.period_ns)
