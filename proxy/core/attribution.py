"""Attribution: the one object that turns events into joules per request.

Contract for the shell: create one :class:`Attributor`, ``feed`` it events in order of ``t_ns``, take
finished shares with ``drain``. Nothing else drives it: no clock, no thread. The same events give the same
joules, bit for bit, live and offline.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.core.accounts import Account
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.core.model import EnergyModel
from proxy.core.policies import policy_named
from proxy.core.tracks import Charge, Group, Track
from proxy.core.work import WIDTH, Work, share
from proxy.schema import DeviceAccount, ModelTerms, Parts
from proxy.units import NS_PER_MS, ns_from_seconds, seconds_from_ns

_BLOCK_NS: Final = 250 * NS_PER_MS  # windows are closed in blocks: the cost of a block is shared


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The joules of one request, as the core knows them (fields as in ``RequestEnergy``)."""

    request: str
    joules: float | None
    joules_low: float | None
    joules_high: float | None
    parts: Parts | None
    policy: str
    evidence: str
    devices: dict[str, float]
    unknown: str | None
    final: bool


class Attributor:
    """Feed/drain: events in order in, shares of finished requests out."""

    def __init__(
        self,
        policy: str = "steps",
        devices: Sequence[Device] = (),
        *,
        settle_s: float = 120.0,
        stale_s: float = 30.0,
    ) -> None:
        """Waits are in seconds of the timeline.

        ``settle_s``: for requests to report their usage, before the windows they began in are closed;
        ``stale_s``: for a silent sensor, before its time is a gap.
        """
        self.policy = policy_named(policy)
        self._settle_ns = ns_from_seconds(settle_s)
        self._stale_ns = ns_from_seconds(stale_s)
        self._accounts: dict[str, Account] = {}
        self._models: dict[str, DeviceModel] = {}
        self._groups: dict[tuple[str, ...], Group] = {}
        self._tracks: dict[str, tuple[Track, Group]] = {}
        self._young: dict[str, Track] = {}  # running, and not yet older than settle_s
        self._ended: dict[str, Track] = {}  # ended, and not yet final
        self._done: list[Share] = []
        self._now: int | None = None
        self._declare(devices)

    def _declare(self, devices: Iterable[Device]) -> None:
        for device in devices:
            self._accounts[device.id] = Account(device.id, device.name)

    def feed(self, event: Event) -> None:
        """Take one event; raises ``ValueError`` for a stamp before the last one."""
        if isinstance(event, Header):
            self._declare(event.devices)
            return
        if self._now is not None and event.t_ns < self._now:
            raise ValueError(f"t_ns {event.t_ns} is before {self._now}: events must be in order")
        self._now = event.t_ns
        match event:
            case Output():
                found = self._tracks.get(event.request)
                if found is not None and found[0].end is None:
                    found[1].output(found[0], event.t_ns, event.tokens)
            case Sample():
                self._sample(event)
            case Arrive():
                self._arrive(event)
            case End():
                self._end(event)
            case _:
                pass  # engine evidence: not used yet

    def _arrive(self, arrive: Arrive) -> None:
        if arrive.request in self._tracks:
            return
        key = (*arrive.devices, arrive.backend or arrive.model or "")
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, arrive.devices)
        track = group.open(arrive)
        self._tracks[arrive.request] = (track, group)
        self._young[arrive.request] = track

    def _end(self, end: End) -> None:
        found = self._tracks.get(end.request)
        if found is None or found[0].end is not None:
            return
        track = found[0]
        track.end = end
        self._young.pop(end.request, None)
        if self._measured(track):
            self._ended[end.request] = track
        else:
            self._finish(track)

    def _sample(self, sample: Sample) -> None:
        account = self._accounts.get(sample.device)
        if account is None:
            account = self._accounts[sample.device] = Account(sample.device)
        edge = account.series.feed(sample)
        for other in self._accounts.values():
            last = other.series.last_ns
            if last is not None and sample.t_ns - last > self._stale_ns:
                other.series.lose(sample.t_ns, "no_samples")
                edge = True
        if edge:
            self._close_what_is_ripe()

    def _measured(self, track: Track) -> list[Account]:
        """Accounts of the request's devices that have readings."""
        accounts = (self._accounts.get(device) for device in track.arrive.devices)
        return [a for a in accounts if a is not None and a.series.edge_ns is not None]

    def _close_what_is_ripe(self) -> None:
        read = [a for a in self._accounts.values() if a.series.edge_ns is not None]
        horizon = min(a.series.edge_ns or 0 for a in read)
        start = min(a.closed_ns or 0 for a in read)
        while self._young:
            oldest = next(iter(self._young))
            if horizon - self._young[oldest].start_ns <= self._settle_ns:
                break
            del self._young[oldest]
        quiet = len(self._tracks) == len(self._ended)
        end = horizon
        if self.policy.needs_usage and self._young:
            first = next(iter(self._young.values())).start_ns
            end = min(horizon, max(first, horizon - self._settle_ns))
            end = read[0].series.edge_at_or_before(end)
            if not self._mature() and horizon - start < self._settle_ns:
                return  # a first guess for the terms from as much as may be waited for
        if end - start >= _BLOCK_NS or (quiet and self._ended and end > start):
            self._close(end)

    def _mature(self) -> bool:
        return bool(self._models) and all(m.fit.mature for m in self._models.values())

    def _close(self, end: int) -> None:
        """Divide what was measured since the last closing, up to ``end``."""
        read = [a for a in self._accounts.values() if a.closed_ns is not None and a.closed_ns < end]
        if read:
            start = min(a.closed_ns or 0 for a in read)
            works = [
                (group, tracks, self.policy.work(group, tracks, start, end))
                for group in self._groups.values()
                if (tracks := _within(group, start, end))
            ]
            for account in read:
                self._divide(account, works, end)
        for group in self._groups.values():
            group.forget(end)
        for track in [t for t in self._ended.values() if self._is_closed(t)]:
            self._finish(track)

    def _divide(self, account: Account, works: list[tuple[Group, list[Track], Work]], end: int) -> None:
        """Share one device's windows among the groups on it."""
        edges, cumulative = account.series.windows(account.closed_ns or 0, end)
        measured = np.diff(cumulative)
        here = [w for w in works if account.device in w[0].devices]
        model = self._models.setdefault(account.device, DeviceModel())
        slots = [model.slot(group.key) for group, _, _ in here]
        split = self.policy.split(model.fit, edges, measured, [w[2] for w in here], slots)
        for (_, tracks, work), terms, scale in zip(here, split.terms, split.scales, strict=True):
            parts = share(work, terms, scale)
            life, alone = work.bounds(terms, scale)
            for index in np.flatnonzero(life + parts.sum(axis=1)).tolist():
                track = tracks[index]
                charge = track.charges.setdefault(account.device, Charge())
                charge.add(float(parts[index].sum()), float(alone[index]), float(life[index]))
                track.parts += parts[index]
        account.book(edges, measured, split.requests)
        account.series.forget(end)

    def _finish(self, track: Track) -> None:
        request = track.arrive.request
        self._done.append(self._share(track, final=True))
        self._tracks.pop(request)[1].close(track)
        self._young.pop(request, None)
        self._ended.pop(request, None)

    def _is_closed(self, track: Track) -> bool:
        end = track.end_ns
        return end is not None and all((a.closed_ns or 0) >= end for a in self._measured(track))

    def _share(self, track: Track, *, final: bool) -> Share:
        accounts = self._measured(track)
        unknown = self._unknown(track, accounts, final=final)
        charges = track.charges
        if not charges and unknown is None:
            charges = {account.device: Charge() for account in accounts}
        if not charges:
            return self._nothing(track, unknown or "no_samples", final=final)
        joules = sum(c.joules for c in charges.values())
        edge = sum((a.series.watts or 0.0) * _period_seconds(a) for a in accounts)
        low = max(sum(c.alone for c in charges.values()) - edge, 0.0)
        high = sum(c.life for c in charges.values()) + edge
        return Share(
            request=track.arrive.request,
            joules=joules,
            joules_low=min(low, joules),
            joules_high=None if unknown else max(high, joules),
            parts=_parts(track.parts) if self.policy.needs_usage else None,
            policy=self.policy.name,
            evidence=self.policy.evidence,
            devices={device: c.joules for device, c in charges.items()},
            unknown=unknown,
            final=final,
        )

    def _nothing(self, track: Track, reason: str, *, final: bool) -> Share:
        return Share(
            request=track.arrive.request,
            joules=None,
            joules_low=None,
            joules_high=None,
            parts=None,
            policy=self.policy.name,
            evidence=self.policy.evidence,
            devices={},
            unknown=reason,
            final=final,
        )

    def _unknown(self, track: Track, accounts: list[Account], *, final: bool) -> str | None:
        """Why the energy of a request is not, or not wholly, known."""
        if not track.arrive.devices:
            return "no_device"
        if len(accounts) < len(track.arrive.devices):
            return "no_samples"
        end = track.end_ns
        for account in accounts:
            first, closed = account.series_start_ns, account.closed_ns
            if first is None or first > track.start_ns:
                return "before_first_sample"
            if final and end is not None and closed is not None and closed < end:
                return "after_last_sample"
            for gap in account.series.gaps:
                if gap.end_ns > track.start_ns and (end is None or gap.start_ns < end):
                    return gap.reason
        return None

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
        copy = Track(track.arrive, end=track.end, parts=track.parts.copy())
        for account in self._measured(track):
            device = account.device
            known = track.charges.get(device, Charge())
            start = max(account.closed_ns or t_ns, track.start_ns)
            end = min(track.end_ns or t_ns, t_ns)
            running = len(self._tracks) - len(self._ended)
            open_joules = (account.series.watts or 0.0) * max(seconds_from_ns(end - start), 0.0)
            charge = copy.charges[device] = Charge(known.joules, known.alone, known.life)
            charge.add(open_joules / max(running, 1), 0.0, open_joules)
        return self._share(copy, final=False)

    def flush(self) -> None:
        """Close what can be closed: no more events will come. Requests still open end unknown."""
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
        sums: dict[tuple[str, ...], NDArray[np.float64]] = {}
        idle: dict[tuple[str, ...], float] = {}
        fits: dict[tuple[str, ...], EnergyModel] = {}
        for model in self._models.values():
            for key, terms in model.terms():
                if model.fit.variance is not None:
                    sums[key] = sums.get(key, np.zeros(WIDTH)) + terms
                    idle[key] = idle.get(key, 0.0) + float(model.fit.theta[-1])
                    fits[key] = model.fit
        return [
            ModelTerms(
                group=",".join(part for part in key if part),
                static_j=float(terms[0]),
                decode_j=float(terms[1]),
                context_j=float(terms[2]),
                prefill_j=float(terms[3]),
                idle_w=idle[key],
                r2=fits[key].r2,
                windows=fits[key].windows,
            )
            for key, terms in sums.items()
        ]

    def closed_ns(self) -> int | None:
        """Until when every device's windows are closed; None with no readings."""
        closed = [a.closed_ns for a in self._accounts.values() if a.closed_ns is not None]
        return min(closed) if closed else None


def _period_seconds(account: Account) -> float:
    return (account.series.period_ns or 0.0) / 1e9


class DeviceModel:
    """The fit of one device, and which group has which of its slots."""

    __slots__ = ("_slots", "fit")

    def __init__(self) -> None:
        self.fit = EnergyModel(0)
        self._slots: dict[tuple[str, ...], int] = {}

    def slot(self, key: tuple[str, ...]) -> int:
        """The slot of a group; a new one is made room for."""
        if key not in self._slots:
            self._slots[key] = len(self._slots)
            self.fit.widen(len(self._slots))
        return self._slots[key]

    def terms(self) -> list[tuple[tuple[str, ...], NDArray[np.float64]]]:
        """The four terms of each group."""
        return [(key, self.fit.theta[i * WIDTH : (i + 1) * WIDTH]) for key, i in self._slots.items()]


def _within(group: Group, start: int, end: int) -> list[Track]:
    """Tracks of a group with a part of their life in [start, end]."""
    return [t for t in group.tracks.values() if t.start_ns < end and (t.end_ns is None or t.end_ns >= start)]


def _parts(joules: NDArray[np.float64]) -> Parts:
    static, decode, context, prefill = joules.tolist()
    return Parts(static=static, decode=decode, context=context, prefill=prefill)
