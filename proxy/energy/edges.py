"""A counter's own update edges: period, phase, and when the next one is due. Pure.

A cumulative counter steps every 20-100 ms; a reading is exact only right after a step. Fed with the
stamps at which the value was seen to change, this predicts the next one.
"""

import itertools
from dataclasses import dataclass, field
from typing import Final

from proxy.units import NS_PER_MS

_MIN_CHANGES: Final = 3
_FIRST_GUARD_NS: Final = 2 * NS_PER_MS
_MIN_GUARD_NS: Final = NS_PER_MS // 2
_PERIOD_CORRECTION: Final = 0.1
_PHASE_CORRECTION: Final = 0.5
_CLOSE_NS: Final = 2 * NS_PER_MS


def measure_period(changes_ns: list[int], polls: int) -> int | None:
    """Update period in ns of the stamps of changes seen in ``polls`` fast polls.

    None when too few changes were seen, or when nearly every poll saw one (finer than the polling).
    """
    if len(changes_ns) < _MIN_CHANGES or len(changes_ns) > polls * 0.7:
        return None
    gaps = sorted(b - a for a, b in itertools.pairwise(changes_ns))
    middle = gaps[len(gaps) // 2]
    whole = sum(round(gap / middle) for gap in gaps)
    return round((changes_ns[-1] - changes_ns[0]) / whole) if whole else None


@dataclass(slots=True)
class EdgeTracker:
    """Follows the edges: ``due`` says when to look, ``hit`` and ``missed`` what was seen."""

    period_ns: int
    edge_ns: int
    guard_ns: int = field(default=_FIRST_GUARD_NS)

    def due(self, t_ns: int) -> int:
        """The first expected edge at or after ``t_ns``."""
        periods = max(1, -(-(t_ns - self.edge_ns) // self.period_ns))
        return self.edge_ns + periods * self.period_ns

    def hit(self, before_ns: int, t_ns: int) -> None:
        """The value changed between two polls at ``before_ns`` and ``t_ns``; far apart tells little."""
        if t_ns - before_ns > _CLOSE_NS:
            return
        periods = max(1, round((t_ns - self.edge_ns) / self.period_ns))
        expected = self.edge_ns + periods * self.period_ns
        residual = t_ns - expected
        self.period_ns += round(_PERIOD_CORRECTION * residual / periods)
        self.edge_ns = expected + round(_PHASE_CORRECTION * residual)
        self.guard_ns = max(_MIN_GUARD_NS, self.guard_ns // 2)

    def missed(self) -> None:
        """No change in the window looked at: look wider next time."""
        self.guard_ns = min(self.period_ns // 2, self.guard_ns * 2)
