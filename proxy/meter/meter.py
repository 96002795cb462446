"""The meter's state: one attributor, one ledger, the exporters; fed by ``tick``, asked by the admin port.

No sockets and no threads here: ``process`` has those.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from proxy.clock import WallAnchor, now_ns
from proxy.config import Backend, ConfigError, MeterConfig
from proxy.core.attribution import Attributor, Share
from proxy.core.events import TIMELINE_VERSION, Event, Header, Output
from proxy.core.ledger import Entry, Ledger, with_share
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.energy.groups import devices_by_backend
from proxy.energy.source import Found
from proxy.evidence.own_view import OwnView
from proxy.exporters.base import Exporters, Finished
from proxy.ipc import Ask, BackendState, Chunk, Closed, Opened, RelayState, ToMeter
from proxy.meter.backends import Backends, BackendView, RelayView
from proxy.meter.intake import START_NS, Connection, Intake
from proxy.schema import DeviceAccount, RequestEnergy, Unknown
from proxy.timeline_file import TimelineWriter
from proxy.units import NS_PER_SECOND, ns_from_seconds, seconds_from_ns

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
_log = logging.getLogger(__name__)


class Meter:
    """Everything that is measured and known, in one place with one writer."""

    def __init__(
        self,
        config: MeterConfig,
        backends: Sequence[Backend],
        found: Sequence[Found],
        source: str | None,
        exporters: Exporters,
        left_out: Sequence[str] = (),
        resumed_ns: int | None = None,
    ) -> None:
        """``found``: the devices that are read; ``left_out`` says of others why they are not.

        ``resumed_ns``: when an earlier meter was last alive, in whose place this one is.
        """
        self.anchor = WallAnchor.take()
        self.source = source
        self.found = found
        self.left_out = tuple(left_out)
        self._resumed_ns = resumed_ns
        self._devices = [f.device for f in found]
        self._attributed = config.host_energy == "attributed"
        self._backends = Backends()
        self.follow(backends)
        self.attributor = Attributor(
            config.policy, self._devices, settle_s=config.settle_seconds, resumed_ns=resumed_ns
        )
        self.ledger = Ledger(config.keep_records, self.anchor.unix)
        self.own_view = OwnView()
        self.intake = Intake(
            ns_from_seconds(config.reorder_seconds), self._devices_of, self.own_view.take, start_ns=now_ns()
        )
        self._exporters = exporters
        self._recorder = self._open_recorder(config)
        self._flushed_ns = now_ns()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}  # for final records
        self._measuring: dict[str, list[asyncio.Future[None]]] = {}  # for final or measured ones

    def follow(self, backends: Sequence[Backend]) -> None:
        """New backends, for requests to come; raises :class:`ConfigError` for a device that is not there."""
        self.mapped = devices_by_backend(backends, self._devices, host=self._attributed)
        self.configured = tuple(backends)

    def _open_recorder(self, config: MeterConfig) -> TimelineWriter | None:
        if config.record is None:
            return None
        try:
            path = Path(config.record)
            put_aside(path)
            recorder = TimelineWriter(path)
        except OSError as error:
            raise ConfigError(f"record: {config.record} cannot be written: {error.strerror}") from error
        unix_ns, t_ns = self.anchor.unix_ns, self.anchor.monotonic_ns
        devices, settle_s = tuple(self._devices), config.settle_seconds
        header = Header(TIMELINE_VERSION, devices, unix_ns, t_ns, settle_s, self._resumed_ns)
        recorder.write([header])
        return recorder

    def _devices_of(self, backend: str | None) -> tuple[str, ...]:
        return self.mapped.get(backend or "", ())

    def take(self, connection: Connection, message: ToMeter) -> None:
        """One event of a relay."""
        match message:
            case Chunk() | Opened() | Closed():  # nearly all
                self.intake.add(connection, message)
            case BackendState():
                self._backends.told(connection.number, message)
            case RelayState():
                self._backends.relay(connection.number, message)
            case _:
                self.intake.add(connection, message)

    def lost(self, connection: Connection, t_ns: int) -> None:
        """A relay is gone."""
        self._backends.gone(connection.number)
        self.intake.lost(connection, t_ns)

    def backends(self) -> list[BackendView]:
        """How the backends are, as the relays see them."""
        return self._backends.view(self.configured, self.mapped, now_ns())

    def relays(self) -> list[RelayView]:
        """What each relay holds."""
        return self._backends.relays()

    def tick(self, t_ns: int) -> None:
        """Hand on what is ripe at ``t_ns``: record, attribute, settle, export."""
        ripe = self.intake.ripe(t_ns)
        if not ripe:
            return
        events = [event for _, event in ripe]
        self._record(events, t_ns)
        for held, _ in ripe:
            match held:
                case Output():
                    self.ledger.output(held.request, held.t_ns)
                case RequestStart():
                    self.ledger.open(held, self.source)
                case RequestEnd():
                    if (entry := self.ledger.close(held, self.source)) is not None:
                        self._export(entry)
                case _:
                    pass
        self.attributor.feed_all(events)
        for share in self.attributor.drain():
            self._finish(share)
        for request in [name for name in self._measuring if self.attributor.awaits_others(name)]:
            self._release(request, self._measuring)

    def _record(self, events: list[Event], t_ns: int) -> None:
        """Write the timeline; a disk that fails ends the recording, not the measuring."""
        if self._recorder is None:
            return
        try:
            self._recorder.write(events)
            if t_ns - self._flushed_ns >= NS_PER_SECOND:
                self._flushed_ns = t_ns
                self._recorder.flush()
        except OSError as error:
            _log.error("record: no more is written: %s", error.strerror)
            with contextlib.suppress(OSError):
                self._recorder.close()
            self._recorder = None

    def _finish(self, share: Share) -> None:
        self.intake.final(share.request)
        entry = self.ledger.settle(self._named(share))
        if entry is not None:
            self._export(entry)

    def _export(self, entry: Entry) -> None:
        if entry.closed is None:
            return
        self._exporters.export(
            Finished(entry.record, entry.opened, entry.closed, entry.first_output_ns, self.anchor)
        )
        for waiting in (self._waiting, self._measuring):
            self._release(entry.record.request_id, waiting)

    @staticmethod
    def _release(request: str, waiting: dict[str, list[asyncio.Future[None]]]) -> None:
        for answer in waiting.pop(request, ()):
            if not answer.done():
                answer.set_result(None)

    def _named(self, share: Share) -> Share:
        """Where there is no source at all, that is the reason."""
        if self.source is None and share.joules is None:
            return msgspec.structs.replace(share, unknown=Unknown.NO_ENERGY_SOURCE)
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

    async def until_final(self, request: str, seconds: float, *, hold: bool = True) -> None:
        """Wait until the request is final, at most ``seconds``.

        ``hold`` false: wait for readings alone. A request is not final while windows of its life wait for
        others that run, which may take as long as they do: a response must not be held for those.
        """
        entry = self.ledger.get(request)
        if seconds <= 0 or (entry is not None and entry.record.final):
            return
        if not hold and self.attributor.awaits_others(request):
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting if hold else self._measuring
        waiting.setdefault(request, []).append(answer)
        try:
            async with asyncio.timeout(seconds):
                await answer
        except TimeoutError:
            pass
        finally:
            others = waiting.get(request, [])
            if answer in others:
                others.remove(answer)
            if not others:
                waiting.pop(request, None)

    async def tell(self, connection: Connection, ask: Ask) -> bytes:
        """The energy object for an answer, as JSON."""
        request = connection.name_of(ask)
        await self.until_final(request, seconds_from_ns(ask.wait_ns), hold=False)
        record = self.record(request)
        if record is None:  # shorter than the reorder time: it is about to be known
            await asyncio.sleep(min(2 * seconds_from_ns(self.intake.reorder_ns), _SHORT_SECONDS))
            record = self.record(request)
        if record is None:
            return msgspec.json.encode({"joules": None, "final": False, "unknown": Unknown.NOT_KNOWN})
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

    def settle(self) -> None:
        """Hand on all that is held and make every record final: no more will come."""
        self.tick(now_ns() + START_NS + self.intake.reorder_ns)
        self.attributor.flush()
        for share in self.attributor.drain():
            self._finish(share)

    def close(self) -> None:
        """Close the timeline and the exporters, which may wait for a network: of any thread."""
        if self._recorder is not None:
            try:
                self._recorder.close()
            except OSError as error:
                _log.error("record: the end of the timeline is not written: %s", error.strerror)
        self._exporters.close()


def put_aside(path: Path) -> None:
    """Keep an older recording under a name of its own: ``t.jsonl.zst`` becomes ``t-1.jsonl.zst``."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    stem, dot, suffixes = path.name.partition(".")
    earlier = re.compile(rf"{re.escape(stem)}-(\d+){re.escape(dot + suffixes)}")
    taken = (earlier.fullmatch(other.name) for other in path.parent.iterdir())
    number = max((int(found[1]) for found in taken if found), default=0) + 1
    path.rename(path.with_name(f"{stem}-{number}{dot}{suffixes}"))
