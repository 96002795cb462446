"""Estimate when the work of a job began and when it will end, by the states that were seen. Pure."""

from typing import Final

from proxy.api.jobs import JobState
from proxy.units import NS_PER_SECOND

_LONGEST_NS: Final = 7 * 86_400 * NS_PER_SECOND  # of a job


class JobProgress:
    """Feed the states of one job in order of time.

    Attributes:
        started_ns: When its work began; None while it waits.
        end_ns: When its work will end at its present rate; None where no progress is reported.

    A job begins between two looks at it. Its progress, of which engines report percents of equal steps, shows
    where: the line through the first and the last look at it is extended to 0 and to 1. Without progress the
    middle of the two looks is the guess.
    """

    __slots__ = ("_first", "_running_ns", "_waiting_ns", "end_ns", "started_ns")

    def __init__(self, t_ns: int) -> None:
        """``t_ns``: when the job was sent to its backend, monotonic nanoseconds."""
        self._waiting_ns = t_ns  # last time at which it had not begun
        self._running_ns = 0  # first time at which it had
        self._first: tuple[int, float] | None = None  # first look at its progress
        self.started_ns: int | None = None
        self.end_ns: int | None = None

    def see(self, t_ns: int, state: JobState) -> None:
        """Add a look at the job at ``t_ns``."""
        if self.started_ns is None:
            if state.waits:
                self._waiting_ns = t_ns
                return
            self._running_ns = t_ns
            self.started_ns = (self._waiting_ns + t_ns) // 2
        fraction = state.done_fraction
        if not fraction:
            return
        if self._first is None:
            self._first = (t_ns, fraction)
            return
        first_ns, first = self._first
        if fraction > first and t_ns > first_ns:
            whole_ns = (t_ns - first_ns) / (fraction - first)
            if whole_ns > _LONGEST_NS:  # rounding noise: the progress did not advance
                return
            started_ns = first_ns - round(first * whole_ns)
            self.started_ns = min(max(started_ns, self._waiting_ns), self._running_ns)
            self.end_ns = t_ns + round((1.0 - fraction) * whole_ns)
