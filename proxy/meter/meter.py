"""The meter's state: one attributor, one ledger, the exporters; fed by ``tick``, asked by the admin port.

No sockets and no threads here: ``process`` has those.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from proxy.clock import WallAnchor, now_ns
from proxy.config import Backend, MeterConfig
from proxy.core.attribution import Attributor, Share
from proxy.core.channel import Ask, Closed, Opened, ToMeter
from proxy.core.events import TIMELINE_VERSION, Header, Output
from proxy.core.ledger import Ledger, with_share
from proxy.energy.groups import devices_by_backend
from proxy.energy.meter import Found
from proxy.evidence.own_view import OwnView
from proxy.exporters.base import Exporters, Finished
from proxy.meter.intake import Connection, Intake, event_of
from proxy.schema import DeviceAccount, RequestEnergy
from proxy.timeline_file import TimelineWriter
from proxy.units import ns_from_seconds, seconds_from_ns

ENERGY_FIELDS: Final = (
    "joules",
    "joules_low",
    "joules_high",
    "parts",
    "policy",
    "evidence",
    "source",
    "final",
    "unknown",
)
_SHORT_SECONDS: Final = 0.25  # an answer is not held longer than this for events that come late
_NO_SOURCE: Final = "no_energy_source"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Waiting:
    """Someone who waits for a request to be final."""

    request: str
    answer: asyncio.Future[None]


class Meter:
    """Everything that is measured and known, in one place with one writer."""

    def __init__(
        self,
        config: MeterConfig,
        backends: Sequence[Backend],
        found: Sequence[Found],
        source: str | None,
        exporters: Exporters,
    ) -> None:
        self.anchor = WallAnchor.take()
        self.source = source
        self.found = found
        self._devices = [f.device for f in found]
        attributed = config.host_energy == "attributed"
        self.mapped = devices_by_backend(backends, self._devices, host=attributed)
        self.attributor = Attributor(config.policy, self._devices, settle_s=config.settle_seconds)
        self.ledger = Ledger(config.keep_records, self.anchor.unix)
        self.own_view = OwnView()
        self.intake = Intake(ns_from_seconds(config.reorder_seconds), self._devices_of, self.own_view.take)
        self._exporters = exporters
        self._recorder = self._open_recorder(config)
        self._waiting: list[Waiting] = []

    def _open_recorder(self, config: MeterConfig) -> TimelineWriter | None:
        if config.record is None:
            return None
        recorder = TimelineWriter(Path(config.record))
        devices = tuple(self._devices)
        recorder.write([Header(TIMELINE_VERSION, devices, self.anchor.unix_ns, self.anchor.monotonic_ns)])
        return recorder

    def _devices_of(self, backend: str | None) -> tuple[str, ...]:
        return self.mapped.get(backend or "", ())

    def take(self, connection: Connection, message: ToMeter) -> None:
        """One event of a relay."""
        self.intake.add(connection, message)

    def tick(self, t_ns: int) -> None:
        """Hand on what is ripe at ``t_ns``: record, attribute, settle, export."""
        ripe = self.intake.ripe(t_ns)
        if not ripe:
            return
        events = [event_of(held) for held in ripe]
        if self._recorder is not None:
            self._recorder.write(events)
        for held, event in zip(ripe, events, strict=True):
            match held:
                case Opened():
                    self.ledger.open(held, self.source)
                case Output():
                    self.ledger.output(held.request, held.t_ns)
                case Closed():
                    self.ledger.close(held)
                case _:
                    pass
            self.attributor.feed(event)
        for share in self.attributor.drain():
            self._finish(share)

    def _finish(self, share: Share) -> None:
        entry = self.ledger.settle(self._named(share))
        if entry is None or entry.closed is None:
            return
        self._exporters.export(
            Finished(entry.record, entry.opened, entry.closed, entry.first_output_ns, self.anchor)
        )
        for waiting in [w for w in self._waiting if w.request == share.request]:
            self._waiting.remove(waiting)
            if not waiting.answer.done():
                waiting.answer.set_result(None)

    def _named(self, share: Share) -> Share:
        """Where there is no source at all, that is the reason."""
        if self.source is None and share.joules is None:
            return msgspec.structs.replace(share, unknown=_NO_SOURCE)
        return share

    def record(self, request: str) -> RequestEnergy | None:
        """The record of a request, with provisional joules while it is not final."""
        entry = self.ledger.get(request)
        if entry is None:
            return None
        if entry.record.final:
            return entry.record
        share = self.attributor.provisional(request, now_ns())
        return entry.record if share is None else with_share(entry.record, self._named(share))

    async def until_final(self, request: str, seconds: float) -> None:
        """Wait until the request is final, at most so long."""
        entry = self.ledger.get(request)
        if seconds <= 0 or (entry is not None and entry.record.final):
            return
        waiting = Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                await waiting.answer
        except TimeoutError:
            pass
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def tell(self, ask: Ask) -> bytes:
        """The energy object for an answer, as JSON."""
        await self.until_final(ask.request, seconds_from_ns(ask.wait_ns))
        record = self.record(ask.request)
        if record is None:  # shorter than the reorder time: it is about to be known
            await asyncio.sleep(min(2 * seconds_from_ns(self.intake.reorder_ns), _SHORT_SECONDS))
            record = self.record(ask.request)
        if record is None:
            return msgspec.json.encode({"joules": None, "final": False, "unknown": "not_known"})
        fields = msgspec.structs.asdict(record)
        return msgspec.json.encode({name: fields[name] for name in ENERGY_FIELDS})

    def accounts(self, accounts: list[DeviceAccount]) -> list[DeviceAccount]:
        """Accounts with the age of their readings."""
        now = now_ns()
        ages = self.attributor.last_samples()
        return [
            msgspec.structs.replace(a, sample_age_s=seconds_from_ns(now - ages[a.device]))
            if a.device in ages
            else a
            for a in accounts
        ]

    def close(self) -> None:
        """Hand on all that is held, make every record final, close the exporters."""
        self.tick(now_ns() + self.intake.reorder_ns)
        self.attributor.flush()
        for share in self.attributor.drain():
            self._finish(share)
        if self._recorder is not None:
            self._recorder.close()
        self._exporters.close()
