"""Jobs: requests that are answered at once while their work goes on (``/v1/videos``).

A job whose states the relay follows is reported by spans, from its acceptance on, and ends at its own end: it
is a request like any other of which no token is read, present in the engine from the begin of its work.

Of any other job nothing shows when it is done, so its joules are not known (``job_not_tracked``), and what
its devices use while it could be running is unattributed, never idle. It could be running from its POST
until every device of its backend was at its idle power for ``QUIET_NS`` on end, at the longest for
``LONGEST_NS`` (a device whose idle power was never seen, or that is never idle). In that time it takes part
in the engine like any request of which no token is read (``unread``), so that requests beside it are not
charged for it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from proxy.core.activity.outputs import Streams
from proxy.core.activity.tracks import Group, Track
from proxy.core.energy.accounts import Account
from proxy.core.events import End, Span
from proxy.core.reconstruct.unread import FIRST_ERROR
from proxy.units import NS_PER_SECOND

QUIET_NS: Final = 10 * NS_PER_SECOND  # a job may load weights or wait between stages at little power
LONGEST_NS: Final = 3600 * NS_PER_SECOND
ROUTES: Final = frozenset({"videos"})
_BATCHES: Final = frozenset({"images", "videos"})  # routes of engines that compute a batch to its end
_CANCELLED_QUIET_NS: Final = NS_PER_SECOND  # after which cancelled work is over
_USUAL_NS: Final = 60 * NS_PER_SECOND  # of cancelled work, before a request of its kind has ended
_IDLE: Final = 1.3  # times its usual idle power: clocks and temperature move it, work more than doubles it


def is_job(track: Track) -> bool:
    """Whether a request is a job, or may become one: its answer says nothing of its work.

    A refusal made no job, and an answer with units (frames) is the work itself.
    """
    if track.job or track.tracked or track.arrive.route not in ROUTES:
        return track.job
    end = track.end
    return end is None or (end.units is None and (end.status is None or end.status < FIRST_ERROR))


def track_job(track: Track, span: Span, streams: Streams) -> None:
    """Apply a span to a request; of a job, it is in the engine from the begin of its work on."""
    track.span = span
    if track.arrive.route in ROUTES and span.first_token_ns is not None:
        track.tracked = True
        streams.start_ns[track.slot] = max(span.first_token_ns, track.start_ns)


def end_job(track: Track, streams: Streams) -> None:
    """Give a tracked job that has ended a begin not after its end: its work may never have begun."""
    begin_ns, end_ns = int(streams.start_ns[track.slot]), int(streams.end_ns[track.slot])
    streams.start_ns[track.slot] = min(begin_ns, end_ns)


class Jobs:
    """Work that is not seen to end.

    Jobs that could be running are held from the end of their POST until nothing of them can be left.
    Cancelled images and tracked jobs go on until they can have no work left.
    """

    __slots__ = ("_cancelled", "_ends", "_held", "_longest_ns", "_quiet_since")

    def __init__(self) -> None:
        self._held: list[tuple[Track, Group]] = []
        self._cancelled: list[tuple[Track, Group, int]] = []  # and when it is over at the latest
        self._ends: dict[str, End] = {}  # of these, as they were received
        self._longest_ns: dict[tuple[tuple[str, ...], str], int] = {}  # life of a request, by group and route
        self._quiet_since: dict[str, int] = {}  # by device, while it is at its idle power

    def __len__(self) -> int:
        return len(self._held) + len(self._cancelled)

    def hold(self, track: Track, group: Group) -> None:
        """Keep a job in its group's engine; its POST has ended."""
        track.job, track.end = True, None
        self._held.append((track, group))

    def goes_on(self, track: Track, group: Group) -> bool:
        """Return whether the work of a request that has just ended goes on; ``observe`` returns its end.

        Servers of diffusion models compute a batch to its end, whoever cancelled: what is burnt for such a
        request is its own. Work that was cancelled in the queue is not computed.
        """
        end, request, route = track.end, track.arrive.request, track.arrive.route
        if end is None or route not in _BATCHES:
            return False
        if self._ends.pop(request, None) is not None:  # by ``observe``, or a second end was received
            self._cancelled = [entry for entry in self._cancelled if entry[0] is not track]
            return False
        key = (group.key, route)
        begin_ns = int(group.streams.start_ns[track.slot])
        if not end.cancelled:
            if end.status is not None and end.status < FIRST_ERROR:
                self._longest_ns[key] = max(self._longest_ns.get(key, 0), end.t_ns - begin_ns)
            return False
        if begin_ns >= end.t_ns:
            return False
        until_ns = track.span.end_ns if track.span is not None else None
        if until_ns is None:
            until_ns = begin_ns + self._longest_ns.get(key, _USUAL_NS)
        if until_ns <= end.t_ns:
            return False
        self._cancelled.append((track, group, until_ns))
        self._ends[request] = end
        return True

    def observe(self, account: Account, before_ns: int, t_ns: int) -> list[End]:
        """End the work that cannot be running any more, by a device's window (``before_ns``, ``t_ns``).

        Returns the ends of cancelled requests, at ``t_ns``.
        """
        watts, idle = account.series.watts, account.idle_watts
        if watts is None or idle is None or watts > _IDLE * idle:
            self._quiet_since.pop(account.device, None)
        else:
            self._quiet_since.setdefault(account.device, before_ns)
        for track, group in self._held:
            if track.end is None and account.device in group.devices and self._is_over(track, group, t_ns):
                _end_held(track, group, t_ns)
        over = [
            (track, group, until_ns)
            for track, group, until_ns in self._cancelled
            if account.device in group.devices
            and (t_ns >= until_ns or self._is_quiet(track, group, t_ns, _CANCELLED_QUIET_NS))
        ]
        if not over:
            return []
        self._cancelled = [entry for entry in self._cancelled if entry not in over]
        return [self._end_of(track, t_ns) for track, _, _ in over]

    def overdue(self, t_ns: int) -> list[End]:
        """End the work whose longest time is over, while no reading shows anything.

        Returns the ends of cancelled requests, at ``t_ns``.
        """
        for track, group in self._held:
            if track.end is None and t_ns - track.start_ns >= LONGEST_NS:
                _end_held(track, group, t_ns)
        over = [track for track, _, until_ns in self._cancelled if t_ns >= until_ns]
        self._cancelled = [entry for entry in self._cancelled if entry[2] > t_ns]
        return [self._end_of(track, t_ns) for track in over]

    def give_up(self, t_ns: int) -> list[End]:
        """Return the ends of cancelled requests that still go on, at ``t_ns``: no more readings will come."""
        cancelled, self._cancelled = self._cancelled, []
        return [self._end_of(track, t_ns) for track, _, _ in cancelled]

    def _end_of(self, track: Track, t_ns: int) -> End:
        return msgspec.structs.replace(self._ends[track.arrive.request], t_ns=t_ns)

    def _is_over(self, track: Track, group: Group, t_ns: int) -> bool:
        return t_ns - track.start_ns >= LONGEST_NS or self._is_quiet(track, group, t_ns, QUIET_NS)

    def _is_quiet(self, track: Track, group: Group, t_ns: int, least_ns: int) -> bool:
        quiet = [self._quiet_since.get(device) for device in group.devices]
        return all(since is not None and t_ns - max(since, track.start_ns) >= least_ns for since in quiet)

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


def _end_held(track: Track, group: Group, t_ns: int) -> None:
    track.end = End(t_ns, track.arrive.request)
    group.streams.end_ns[track.slot] = t_ns
