"""Attribution: the one object that turns events into joules per request.

Contract for the shell: create one :class:`Attributor`, ``feed`` it events in order of ``t_ns``, take
finished shares with ``drain``. Nothing else drives it: no clock, no thread. The same events give the same
joules, bit for bit, live and offline.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final

import msgspec
import numpy as np

from proxy.core import backlog
from proxy.core.activity.outputs import NEVER, Streams
from proxy.core.activity.tracks import Group, Track
from proxy.core.charging import divide
from proxy.core.energy.accounts import Account
from proxy.core.energy.energy_series import EnergySeries
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Outside, Sample, Span, Step
from proxy.core.fit.device_model import DeviceModel, group_terms
from proxy.core.jobs import Jobs, end_job, is_job, track_job
from proxy.core.policies import policy_named
from proxy.core.provisional import charged_until, unmoved
from proxy.core.replicas.engines import Engines
from proxy.core.shares import Share, share_of
from proxy.schema import DeviceAccount, Gap, ModelTerms, Unknown
from proxy.units import NS_PER_MS, NS_PER_SECOND, ns_from_seconds

_BLOCK_NS: Final = 250 * NS_PER_MS  # windows are closed in blocks: the cost of a block is shared
_BLOCK_OF_PENDING: Final = 3  # and in at least this part of what is pending, which is looked at each time
_COLD_NS: Final = 30 * NS_PER_SECOND  # the first windows wait so long for a fit,
_COLD_QUIET_NS: Final = NS_PER_SECOND  # or so long when no more is to be seen,
_COLD_ENOUGH: Final = 3_000  # or until so many ended: about as many as are divided at once
_ENDS_OF_CLOSING: Final = 500  # while more waits than is divided at once: so many ends, at most, for the next
_STALE_PERIODS: Final = 3  # a sensor that is seldom refreshed is not silent
_BATCH: Final = 1 << 16  # outputs taken at once
_T_NS, _REQUEST, _TOKENS = attrgetter("t_ns"), attrgetter("request"), attrgetter("tokens")

__all__ = ["Attributor", "Share"]


def _too_early(t_ns: int, now: int) -> ValueError:
    return ValueError(f"t_ns {t_ns} is before {now}: events must be in order")


class _Slots(dict[str, int]):
    """Slots of open requests; -1 for others."""

    def __missing__(self, request: str) -> int:
        return -1


class Attributor:
    """Feed/drain: events in order in, shares of finished requests out."""

    def __init__(
        self,
        policy: str = "steps",
        devices: Sequence[Device] = (),
        *,
        settle_s: float = 120.0,
        stale_s: float = 30.0,
        resumed_ns: int | None = None,
    ) -> None:
        """Waits are in seconds of the timeline.

        ``settle_s``: for requests to report their usage, before the windows they began in are closed;
        ``stale_s``: for a silent sensor, before its time is a gap; longer for one of long periods.
        ``resumed_ns``: when an earlier meter ended unexpectedly; from then to the first reading is a gap.
        """
        self.policy = policy_named(policy)
        self._settle_ns = ns_from_seconds(settle_s)
        self._stale_ns = ns_from_seconds(stale_s)
        self._resumed_ns = resumed_ns
        self._accounts: dict[str, Account] = {}
        self._models: dict[str, DeviceModel] = {}
        self._groups: dict[tuple[str, ...], Group] = {}
        self._engines: dict[tuple[str, ...], Engines] = {}
        self._streams = Streams()
        self._slots = _Slots()
        self._looks_at_outputs = self.policy.needs_usage
        self._tracks: dict[str, tuple[Track, Group]] = {}
        self._young: dict[str, Track] = {}  # running, and not yet older than settle_s
        self._ended: dict[str, Track] = {}  # ended, and not yet final
        self._jobs = Jobs()
        self._outputs: list[Output] = []  # not taken yet
        self._behind = False  # whether more waited than was divided at once
        self._done: list[Share] = []
        self._now = -NEVER
        self._declare(devices)

    def _declare(self, devices: Iterable[Device]) -> None:
        for device in devices:
            account = Account(device.id, device.name, device.gain_error, device.max_watts)
            self._accounts.setdefault(device.id, account)

    def feed(self, event: Event) -> None:
        """Take one event; raises ``ValueError`` for a stamp before the last one."""
        self.feed_all((event,))

    def feed_all(self, events: Iterable[Event]) -> None:
        """Take events; raises ``ValueError`` at a stamp before the last one: what came before it is taken."""
        outputs, looks, now = self._outputs, self._looks_at_outputs, self._now
        try:
            for event in events:
                if type(event) is not Output:
                    self._now = now
                    self._take(event)
                    now = self._now
                    continue
                t_ns = event.t_ns
                if t_ns < now:
                    raise _too_early(t_ns, now)
                now = t_ns
                if looks:
                    outputs.append(event)
                    if len(outputs) >= _BATCH:
                        self._take_outputs()
                        self._give_up_silent(t_ns)
        finally:
            self._now = now

    def _take(self, event: Event) -> None:
        """Any event but an output."""
        if isinstance(event, Header):
            self._declare(event.devices)
            if event.settle_s is not None:  # as it was live: windows are closed as they were then
                self._settle_ns = ns_from_seconds(event.settle_s)
            self._resumed_ns = event.resumed_ns
            return
        if event.t_ns < self._now:
            raise _too_early(event.t_ns, self._now)
        self._now = event.t_ns
        match event:
            case Sample():
                self._sample(event)
            case Arrive():
                self._arrive(event)
            case End():
                self._end(event)
            case Step():
                self._step(event)
            case Span() | Outside():
                self._evidence(event)

    def _arrive(self, arrive: Arrive) -> None:
        if arrive.request in self._tracks:
            return
        key = (*arrive.devices, arrive.backend or arrive.model or "")
        group = self._groups.get(key)
        if group is None:
            group = Group(key, arrive.devices, self._streams)
            group.neighbours = [g for g in self._groups.values() if set(g.devices) & set(arrive.devices)]
            for neighbour in group.neighbours:
                neighbour.neighbours.append(group)
            self._groups[key] = group
            self._engines[key] = Engines(group)
            group.kept_ns = arrive.t_ns - 1
        slot = self._streams.open(arrive.t_ns)
        track = group.tracks[slot] = Track(arrive, slot, evidence=self.policy.evidence)
        self._slots[arrive.request] = slot
        self._tracks[arrive.request] = (track, group)
        self._young[arrive.request] = track

    def _end(self, end: End) -> None:
        found = self._tracks.get(end.request)
        if found is None or found[0].end is not None:
            return
        track, group = found
        track.end = end
        if is_job(track):
            self._hold_job(track, group)
            return
        if self._measured(track) and self._jobs.goes_on(track, group):
            track.end = None
            self._give_up_silent(end.t_ns)
            return
        self._streams.end_ns[track.slot] = end.t_ns
        if track.tracked:
            end_job(track, self._streams)
        self._young.pop(end.request, None)
        if self._measured(track):
            self._ended[end.request] = track
            self._give_up_silent(end.t_ns)
            if self._behind and len(self._ended) % _ENDS_OF_CLOSING == 0:
                self._close_what_is_ripe()
        else:
            self._take_outputs()  # before the slot is another's
            self._finish(track)

    def _hold_job(self, track: Track, group: Group) -> None:
        """Finish the record of a job's POST, and leave the job in the engine."""
        self._take_outputs()  # before its name is another's
        self._done.append(self._share(track, final=True))
        request = track.arrive.request
        del self._tracks[request], self._slots[request]
        self._young.pop(request, None)
        self._jobs.hold(track, group)

    def _step(self, step: Step) -> None:
        for group in self._groups.values():
            if group.devices == step.devices and step.backend in {None, group.key[-1]}:
                group.steps.append(step)
                for name in (*step.prefill, *step.decode):
                    if (found := self._tracks.get(name)) is not None:
                        found[0].reported = True

    def _evidence(self, event: Span | Outside) -> None:
        if isinstance(event, Outside):
            for device in event.devices:
                if device in self._accounts:
                    self._accounts[device].outside.feed(event)
        elif event.request in self._tracks:
            track_job(self._tracks[event.request][0], event, self._streams)

    def _take_outputs(self) -> None:
        """Outputs since the last time, into the columns of their groups.

        Call it before the slot of a request is given back.
        """
        events = self._outputs
        if all(account.series.edge_ns is None for account in self._accounts.values()):
            events.clear()
            return
        count = len(events)
        t_ns = np.fromiter(map(_T_NS, events), np.int64, count)
        slot = np.fromiter(map(self._slots.__getitem__, map(_REQUEST, events)), np.int64, count)
        held = list(map(_TOKENS, events))
        if None in held:
            held = [-1 if tokens is None else tokens for tokens in held]
        tokens = np.array(held, np.int64)
        events.clear()
        # A chunk of no tokens says nothing of the engine, nor does one at the very moment of its request's
        # arrival: it would end a step that lay before.
        streams = self._streams
        known = (slot >= 0) & (tokens != 0) & (t_ns > streams.start_ns[slot]) & (t_ns <= streams.end_ns[slot])
        if not known.all():
            slot, t_ns, tokens = slot[known], t_ns[known], tokens[known]
        self._streams.see(t_ns, slot, tokens)
        groups = list(self._groups.values())
        if len(groups) == 1:
            groups[0].outputs.extend(t_ns, slot, tokens)
            return
        for group in groups:
            of_group = np.zeros(len(self._streams.start_ns), bool)
            of_group[list(group.tracks)] = True
            mine = of_group[slot]
            if mine.any():
                group.outputs.extend(t_ns[mine], slot[mine], tokens[mine])

    def _sample(self, sample: Sample) -> None:
        account = self._accounts.get(sample.device)
        if account is None:
            account = self._accounts[sample.device] = Account(sample.device)
        before = account.series.edge_ns
        if account.series.feed(sample):
            if before is None and self._resumed_ns is not None and self._resumed_ns < sample.t_ns:
                account.series.gaps.append(Gap(self._resumed_ns, sample.t_ns, Unknown.METER_RESTARTED))
            if before is not None and self._jobs:
                for end in self._jobs.observe(account, before, sample.t_ns):
                    self._end(end)
            self._close_what_is_ripe()
        self._give_up_silent(sample.t_ns)

    def _give_up_silent(self, t_ns: int) -> None:
        """The time of a sensor that has long been silent is a gap: nobody waits for its windows."""
        silent = [a.series for a in self._accounts.values() if self._is_silent(a.series, t_ns)]
        for series in silent:
            series.lose(t_ns, series.silence)
        if silent:
            for end in self._jobs.overdue(t_ns):  # no reading will show that their work is over
                self._end(end)
            self._close_what_is_ripe()

    def _is_silent(self, series: EnergySeries, t_ns: int) -> bool:
        if series.last_ns is None or t_ns - series.last_ns <= self._stale_ns:
            return False
        return t_ns - series.last_ns > _STALE_PERIODS * (series.period_ns or 0.0)

    def _measured(self, track: Track) -> list[Account]:
        """Accounts of the request's devices that have readings."""
        accounts = (self._accounts.get(device) for device in track.arrive.devices)
        return [a for a in accounts if a is not None and a.series.edge_ns is not None]

    def _close_what_is_ripe(self) -> None:
        read = [a for a in self._accounts.values() if a.series.edge_ns is not None]
        horizon = min(a.outside.horizon(a.series.edge_ns or 0) for a in read)
        start = min(a.closed_ns or 0 for a in read)
        while self._young:
            oldest = next(iter(self._young))
            if horizon - self._young[oldest].start_ns <= self._settle_ns:
                break
            del self._young[oldest]
        quiet = len(self._tracks) == len(self._ended)
        end = horizon
        if self.policy.needs_usage:
            if self._young:
                first = next(iter(self._young.values())).start_ns
                end = min(horizon, max(first, horizon - self._settle_ns))
                end = min(end, read[0].series.edge_at_or_before(end))  # which may begin later
            mature = self._models and all(model.fit.mature for model in self._models.values())
            if not mature and horizon - start < self._patience_ns(quiet=quiet):
                return  # a first guess for the terms from as much as may be waited for
        least = max(_BLOCK_NS, (horizon - start) // _BLOCK_OF_PENDING)
        if end - start >= least or (quiet and self._ended and end > start):
            self._close(self._cut(read[0], start, end))

    def _cut(self, read: Account, start: int, end: int) -> int:
        """Return the edge of a device up to which windows are closed at once, at most ``end``."""
        self._take_outputs()
        groups = (group for engines in self._engines.values() for group in engines.groups())
        cut = backlog.cut(self._ended.values(), groups, start, end)
        self._behind = cut < end
        if not self._behind:
            return end
        edge = read.series.edge_at_or_before(cut)
        return edge if edge > start else max(cut, start + 1)

    def _patience_ns(self, *, quiet: bool) -> int:
        """How long windows wait for a fit, with that much to fit; in quiet only the very first ones do."""
        if not quiet:
            return _COLD_NS if len(self._ended) < _COLD_ENOUGH else 0
        return 0 if self._models else _COLD_QUIET_NS

    def _close(self, end: int) -> None:
        """Divide what was measured since the last closing, up to ``end``."""
        self._take_outputs()
        read = [  # of a device whose readings ended before, nothing is known until then
            a
            for a in self._accounts.values()
            if a.closed_ns is not None and a.closed_ns < end <= (a.series.edge_ns or 0)
        ]
        if read:
            start = min(a.closed_ns or 0 for a in read)
            works = [
                work
                for engines in self._engines.values()
                for work in engines.works(self.policy, read, start, end)
            ]
            for account in read:
                model = self._models.setdefault(account.device, DeviceModel())
                divide(account, model, self.policy, works, end)
        for engines in self._engines.values():
            engines.forget(self.policy, end)
        for request, track in list(self._ended.items()):
            if self._is_closed(track, self._tracks[request][1]):
                self._finish(track)
        if self._jobs:
            self._jobs.release(self._is_closed)

    def _finish(self, track: Track) -> None:
        request = track.arrive.request
        self._done.append(self._share(track, final=True))
        group = self._tracks.pop(request)[1]
        del group.tracks[track.slot], self._slots[request]
        self._engines[group.key].close(track.slot)
        self._streams.close(track.slot)
        self._young.pop(request, None)
        self._ended.pop(request, None)

    def _is_closed(self, track: Track, group: Group) -> bool:
        end = track.end_ns
        if end is None or group.kept_ns < end:
            return False
        return all((a.closed_ns or 0) >= end for a in self._measured(track))

    def _share(self, track: Track, *, final: bool) -> Share:
        policy = self.policy
        share = share_of(
            track, self._measured(track), policy.name, with_parts=policy.needs_usage, final=final
        )
        found = self._tracks.get(track.arrive.request)
        if found is None or not policy.needs_usage:
            return share
        return msgspec.structs.replace(share, engines=self._engines[found[1].key].count)

    def drain(self) -> list[Share]:
        """Shares that became final since the last call, in order of becoming so."""
        done, self._done = self._done, []
        return done

    def provisional(self, request: str, t_ns: int) -> Share | None:
        """What a running or ended request has cost by ``t_ns``; None for one that is not open.

        Closed windows, and for the time since then the device's last power over the requests active now.
        """
        found = self._tracks.get(request)
        if found is None:
            return None
        track = found[0]
        measured = self._measured(track)
        if measured and any(account.series.watts is None for account in measured):
            return unmoved(self._share(replace(track, charges={}), final=False))
        running = max(len(self._tracks) - len(self._ended), 1)
        return self._share(charged_until(track, measured, t_ns, running), final=False)

    def awaits_others(self, request: str) -> bool:
        """Return whether an ended request is measured to its end, and is not final because of other requests.

        Windows of policies that need usage are divided when all requests in them reported theirs, which may
        take as long as those run, and the very first windows wait for a fit. No reading to come makes the
        request final.
        """
        found = self._tracks.get(request)
        end = found[0].end_ns if found is not None else None
        if found is None or end is None or not self.policy.needs_usage:
            return False
        edges = [account.series.edge_ns or 0 for account in self._measured(found[0])]
        return bool(edges) and min(edges) >= end

    def flush(self) -> None:
        """Close what can be closed: no more events will come. Requests still open end unknown."""
        for cancelled in self._jobs.give_up(self._now):
            self._end(cancelled)
        for account in self._accounts.values():
            account.series.end()
        edges = [a.series.edge_ns for a in self._accounts.values() if a.series.edge_ns is not None]
        for end in sorted(set(edges)):
            self._close(end)
        for track, _ in list(self._tracks.values()):
            self._finish(track)

    def accounts(self) -> list[DeviceAccount]:
        """The account of each device since its first sample."""
        return [account.total() for account in self._accounts.values()]

    def last_samples(self) -> dict[str, int]:
        """Stamp of the newest reading of each device that has one."""
        return {
            name: account.series.last_ns
            for name, account in self._accounts.items()
            if account.series.last_ns is not None
        }

    def window(self, start_ns: int, end_ns: int) -> list[DeviceAccount]:
        """Device accounts over [start_ns, end_ns), windows at its ends taken in proportion."""
        return [account.between(start_ns, end_ns) for account in self._accounts.values()]

    def terms(self) -> list[ModelTerms]:
        """The fitted terms of each energy group, summed over its devices; none for unfitted policies."""
        return group_terms(self._models, self._now)

    def closed_ns(self) -> int | None:
        """Until when every device's windows are closed; None with no readings."""
        closed = [a.closed_ns for a in self._accounts.values() if a.closed_ns is not None]
        return min(closed) if closed else None
