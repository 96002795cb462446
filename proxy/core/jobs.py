"""Jobs: requests that are answered at once while their work goes on (``/v1/videos``).

Nothing that passes through the proxy's events tells when such a job is done, so its joules are not known
(``job_not_tracked``), and what its devices use while it could be running is unattributed, never idle. It
could be running from its POST until every device of its backend was at its idle power for ``QUIET_NS`` on
end, at the longest for ``LONGEST_NS`` (a device whose idle power was never seen, or that is never idle). In
that time it takes part in the engine like any request of which no token is read (``unread``), so that
requests beside it are not charged for it.
"""

from collections.abc import Callable
from typing import Final

from proxy.core.accounts import Account
from proxy.core.events import End
from proxy.core.tracks import Group, Track
from proxy.core.unread import FIRST_ERROR
from proxy.units import NS_PER_SECOND

QUIET_NS: Final = 10 * NS_PER_SECOND  # a job may load weights or wait between stages at little power
LONGEST_NS: Final = 3600 * NS_PER_SECOND
_ROUTES: Final = frozenset({"videos"})
_IDLE: Final = 1.3  # times its usual idle power: clocks and temperature move it, work more than doubles it


def is_job(track: Track) -> bool:
    """Whether a request is a job, or may become one: its answer says nothing of its work.

    A refusal made no job, and an answer with units (frames) is the work itself.
    """
    if track.job or track.arrive.route not in _ROUTES:
        return track.job
    end = track.end
    return end is None or (end.units is None and (end.status is None or end.status < FIRST_ERROR))


class Jobs:
    """Jobs that could be running: held from the end of their POST until nothing of them can be left."""

    __slots__ = ("_held", "_quiet_since")

    def __init__(self) -> None:
        self._held: list[tuple[Track, Group]] = []
        self._quiet_since: dict[str, int] = {}  # by device, while it is at its idle power

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, track: Track, group: Group) -> None:
        """Keep a job in its group's engine; its POST has ended."""
        track.job, track.end = True, None
        self._held.append((track, group))

    def observe(self, account: Account, before_ns: int, t_ns: int) -> None:
        """End the jobs that cannot be running any more, by a device's window (``before_ns``, ``t_ns``)."""
        watts, idle = account.series.watts, account.idle_watts
        if watts is None or idle is None or watts > _IDLE * idle:
            self._quiet_since.pop(account.device, None)
        else:
            self._quiet_since.setdefault(account.device, before_ns)
        for track, group in self._held:
            if track.end is None and account.device in group.devices and self._is_over(track, group, t_ns):
                track.end = End(t_ns, track.arrive.request)
                group.streams.end_ns[track.slot] = t_ns

    def _is_over(self, track: Track, group: Group, t_ns: int) -> bool:
        if t_ns - track.start_ns >= LONGEST_NS:
            return True
        quiet = [self._quiet_since.get(device) for device in group.devices]
        return all(since is not None and t_ns - max(since, track.start_ns) >= QUIET_NS for since in quiet)

    def release(self, is_closed: Callable[[Track, Group], bool]) -> None:
        """Give back the slots of jobs whose windows are closed."""
        kept = []
        for track, group in self._held:
            if track.end is not None and is_closed(track, group):
                del group.tracks[track.slot]
                group.streams.close(track.slot)
            else:
                kept.append((track, group))
        self._held = kept
