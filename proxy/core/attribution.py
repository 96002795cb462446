"""Attribution: the one object that turns events into joules per request.

Contract for the shell: create one :class:`Attributor`, ``feed`` it events in order of ``t_ns``, take
finished shares with ``drain``. Nothing else drives it: no clock, no thread. The same events give the same
joules, bit for bit, live and offline.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from proxy.core.accounts import Account
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample
from proxy.core.overlap import overlap
from proxy.core.tracks import Charge, Track
from proxy.core.work import in_windows, scale_of_cells, share
from proxy.schema import DeviceAccount, Parts
from proxy.units import NS_PER_MS, ns_from_seconds, seconds_from_ns

POLICIES: Final = ("overlap",)
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
        self, policy: str = "overlap", devices: Sequence[Device] = (), *, stale_s: float = 30.0
    ) -> None:
        """``stale_s``: how long a silent sensor is waited for before its time is a gap."""
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r} is not one of {', '.join(POLICIES)}")
        self.policy = policy
        self._stale_ns = ns_from_seconds(stale_s)
        self._accounts: dict[str, Account] = {}
        self._tracks: dict[str, Track] = {}
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
                track = self._tracks.get(event.request)
                if track is not None and track.end is None:
                    track.output(event.t_ns, event.tokens)
            case Sample():
                self._sample(event)
            case Arrive():
                self._tracks.setdefault(event.request, Track(event))
            case End():
                self._end(event)
            case _:
                pass  # engine evidence: this policy has no use for it

    def _sample(self, sample: Sample) -> None:
        account = self._accounts.get(sample.device)
        if account is None:
            account = self._accounts[sample.device] = Account(sample.device)
        if account.series.feed(sample):
            closed = account.closed_ns
            waiting = any(t.end is not None for t in self._tracks.values())
            if closed is not None and (waiting or sample.t_ns - closed >= _BLOCK_NS):
                self._close(account)
        for other in self._accounts.values():
            last = other.series.last_ns
            if last is not None and sample.t_ns - last > self._stale_ns:
                other.series.lose(sample.t_ns, "no_samples")
                self._close(other)
        self._finish()

    def _end(self, end: End) -> None:
        track = self._tracks.get(end.request)
        if track is None or track.end is not None:
            return
        track.end = end
        if not any(self._measured(track)):
            self._done.append(self._share(track, final=True))
            del self._tracks[end.request]

    def _measured(self, track: Track) -> list[Account]:
        """Accounts of the request's devices that have readings."""
        accounts = (self._accounts.get(device) for device in track.arrive.devices)
        return [a for a in accounts if a is not None and a.series.edge_ns is not None]

    def _close(self, account: Account) -> None:
        """Divide what was measured on a device since the last closing."""
        start, end = account.closed_ns, account.series.edge_ns
        if start is None or end is None or end <= start:
            return
        device = account.device
        tracks = [t for t in self._tracks.values() if t.start_ns < end and device in t.arrive.devices]
        edges, cumulative = account.series.windows(start, end)
        measured = np.diff(cumulative)
        work = overlap(tracks, start, end)
        features, covered = in_windows(work, edges)
        seconds = np.diff(edges) / 1e9
        watts = measured / seconds
        requests = watts * np.minimum(covered, seconds)
        # Where requests cover a window whole, rounding must leave no idle crumb.
        requests = np.where(np.isclose(covered, seconds, rtol=1e-12, atol=0.0), measured, requests)
        scale = scale_of_cells(work, edges, watts)
        joules = share(work, np.ones(features.shape[1]), scale)[:, 0]
        life, alone = work.span_sums(scale)
        for index, track in enumerate(tracks):
            charge = track.charges.setdefault(device, Charge())
            charge.add(float(joules[index]), float(alone[index]), float(life[index]))
        account.book(edges, measured, requests, np.zeros(len(measured)))
        account.series.forget(end)

    def _finish(self) -> None:
        done = [t for t in self._tracks.values() if t.end is not None and self._is_closed(t)]
        for track in done:
            self._done.append(self._share(track, final=True))
            del self._tracks[track.arrive.request]

    def _is_closed(self, track: Track) -> bool:
        end = track.end_ns
        return end is not None and all((a.closed_ns or 0) >= end for a in self._measured(track))

    def _share(self, track: Track, *, final: bool) -> Share:
        accounts = self._measured(track)
        unknown = self._unknown(track, accounts, final=final)
        charges = track.charges
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
            parts=None,
            policy=self.policy,
            evidence="arrivals",
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
            policy=self.policy,
            evidence="arrivals",
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
        track = self._tracks.get(request)
        if track is None:
            return None
        copy = Track(track.arrive, end=track.end)
        for account in self._measured(track):
            device = account.device
            charge = track.charges.get(device, Charge())
            start = max(account.closed_ns or t_ns, track.start_ns)
            end = min(track.end_ns or t_ns, t_ns)
            others = sum(t.end is None and device in t.arrive.devices for t in self._tracks.values())
            open_joules = (account.series.watts or 0.0) * max(seconds_from_ns(end - start), 0.0)
            copy.charges[device] = Charge(charge.joules, charge.alone, charge.life)
            copy.charges[device].add(open_joules / max(others, 1), 0.0, open_joules)
        return self._share(copy, final=False)

    def flush(self) -> None:
        """Close what can be closed: no more events will come. Requests still open end unknown."""
        for account in self._accounts.values():
            self._close(account)
        for track in self._tracks.values():
            self._done.append(self._share(track, final=True))
        self._tracks.clear()

    def accounts(self) -> list[DeviceAccount]:
        """The account of each device since its first sample."""
        return [account.total() for account in self._accounts.values()]

    def window(self, start_ns: int, end_ns: int) -> list[DeviceAccount]:
        """Device accounts over [start_ns, end_ns), windows at its ends taken in proportion."""
        return [account.between(start_ns, end_ns) for account in self._accounts.values()]

    def closed_ns(self) -> int | None:
        """Until when every device's windows are closed; None with no readings."""
        closed = [a.closed_ns for a in self._accounts.values() if a.closed_ns is not None]
        return min(closed) if closed else None


def _period_seconds(account: Account) -> float:
    return (account.series.period_ns or 0.0) / 1e9
