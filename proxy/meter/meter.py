"""The state of the meter: intake, attribution, ledger, timeline recorder, exporters.

``tick`` moves everything on: events that the intake releases are recorded, opened and closed in the ledger
and attributed; final records go to the exporters once. The admin port and the relays query it. There are no
sockets and no threads here: :mod:`proxy.meter.process` has those.
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
from proxy.core.ledger import Entry, Ledger, measured
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.energy.groups import devices_by_backend
from proxy.energy.source import Found
from proxy.evidence.own_view import OwnView
from proxy.exporters.base import Exporters, Finished
from proxy.ipc import BackendState, EnergyQuery, RelayState, ToMeter
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
    "cached_from",
    "source",
    "final",
    "unknown",
)
_SHORT_SECONDS: Final = 0.25  # longest delay of a response for events that are late
_log = logging.getLogger(__name__)


class Meter:
    """All measured and attributed data, with one writer: the event loop of the meter process.

    Call ``tick`` regularly; at the end ``settle``, then ``close``.

    Args:
        config: The settings of the meter.
        backends: The configured backends.
        found: Devices that are read.
        source: Names of the sources for records, or None without a source.
        exporters: Receive each final record once.
        left_out: Reasons why other devices are not read, one line each.
        resumed_ns: Time at which an earlier meter was last running, if this one replaces it.

    Raises:
        ConfigError: if a backend names a device that was not found, or the timeline cannot be written.
    """

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
        self.anchor = WallAnchor.take()
        self.source = source
        self.found = found
        self.left_out = tuple(left_out)
        self._resumed_ns = resumed_ns
        self._devices = [f.device for f in found]
        self._attributed = config.host_energy == "attributed"
        self._backends = Backends()
        self.set_backends(backends)
        self.attributor = Attributor(
            config.policy, self._devices, settle_s=config.settle_seconds, resumed_ns=resumed_ns
        )
        self.ledger = Ledger(config.keep_records, self.anchor.unix)
        self.own_view = OwnView()
        self.intake = Intake(
            ns_from_seconds(config.reorder_seconds), self._devices_of, self.own_view.add, start_ns=now_ns()
        )
        self._exporters = exporters
        self._recorder = self._open_recorder(config)
        self._flushed_ns = now_ns()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}  # futures by request, for its final record
        self._measuring: dict[str, list[asyncio.Future[None]]] = {}  # for its readings or its final record

    def set_backends(self, backends: Sequence[Backend]) -> None:
        """Replace the backends, for future requests; raises :class:`ConfigError` for a device not found."""
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

    def receive(self, connection: Connection, messages: Sequence[ToMeter]) -> list[EnergyQuery]:
        """Process messages of a relay; return the queries among them, for ``reply``."""
        queries: list[EnergyQuery] = []
        for message in self.intake.add_all(connection, messages):
            match message:
                case BackendState():
                    self._backends.update_backend(connection.number, message)
                case RelayState():
                    self._backends.update_relay(connection.number, message)
                case EnergyQuery():
                    queries.append(message)
        return queries

    def connection_lost(self, connection: Connection, t_ns: int) -> None:
        """End the requests of a relay whose connection was lost at ``t_ns``."""
        self._backends.remove_relay(connection.number)
        self.intake.connection_lost(connection, t_ns)

    def backends(self) -> list[BackendView]:
        """Return the state of the backends as the relays report it."""
        return self._backends.view(self.configured, self.mapped, now_ns())

    def relays(self) -> list[RelayView]:
        """Return the state of the connected relays."""
        return self._backends.relays()

    def tick(self, t_ns: int) -> None:
        """Process the events that the intake releases at ``t_ns``: record, attribute, finish, export."""
        released = self.intake.release(t_ns)
        if not released:
            return
        events = [event for _, event in released]
        self._record(events, t_ns)
        for held, event in released:
            if type(held) is Output:
                self.ledger.output(held.request, held.t_ns)
            elif isinstance(held, RequestStart):
                self.ledger.open(held, self.source, event.t_ns)
            elif isinstance(held, RequestEnd) and (entry := self.ledger.close(held, self.source)) is not None:
                self._export(entry)
        self.attributor.feed_all(events)
        for share in self.attributor.drain():
            self._finish(share)
        for request in [name for name in self._measuring if self.attributor.awaits_others(name)]:
            self._release(request, self._measuring)

    def _record(self, events: list[Event], t_ns: int) -> None:
        """Write the timeline; a failing disk ends the recording, not the measurement."""
        if self._recorder is None:
            return
        try:
            self._recorder.write(events)
            if t_ns - self._flushed_ns >= NS_PER_SECOND:
                self._flushed_ns = t_ns
                self._recorder.flush()
        except OSError as error:
            _log.error("record: the timeline cannot be written, recording ends: %s", error.strerror)
            with contextlib.suppress(OSError):
                self._recorder.close()
            self._recorder = None

    def _finish(self, share: Share) -> None:
        self.intake.forget(share.request)
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
        for future in waiting.pop(request, ()):
            if not future.done():
                future.set_result(None)

    def _named(self, share: Share) -> Share:
        """Return the share with the reason ``no_energy_source`` if there is no source at all."""
        if self.source is None and share.joules is None:
            return msgspec.structs.replace(share, unknown=Unknown.NO_ENERGY_SOURCE)
        return share

    def record(self, request: str) -> RequestEnergy | None:
        """Return the record of a request, provisional until it is final; None if it is unknown."""
        entry = self.ledger.get(request)
        if entry is None:
            return None
        if entry.record.final:
            return entry.record
        share = self.attributor.provisional(request, now_ns())
        return entry.record if share is None else measured(entry, self._named(share))

    async def until_final(self, request: str, seconds: float, *, hold: bool = True) -> None:
        """Wait until the record of a request is final, at most ``seconds``.

        Args:
            request: Name of the request.
            seconds: Longest wait; 0: return at once.
            hold: False: wait for readings only, not for other requests. A record is not final while windows
                of its time wait for requests that are still running, which may take as long as they do; a
                response must not be delayed by them.
        """
        entry = self.ledger.get(request)
        if seconds <= 0 or (entry is not None and entry.record.final):
            return
        if not hold and self.attributor.awaits_others(request):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting if hold else self._measuring
        waiting.setdefault(request, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            others = waiting.get(request, [])
            if future in others:
                others.remove(future)
            if not others:
                waiting.pop(request, None)

    async def reply(self, connection: Connection, query: EnergyQuery) -> bytes:
        """Return the energy object to be inserted into a response, as JSON.

        Waits for the final value at most as long as the query allows.
        """
        request = connection.name_of(query)
        await self.until_final(request, seconds_from_ns(query.wait_ns), hold=False)
        record = self.record(request)
        if record is None:  # the request is shorter than the reorder time: the intake still holds its start
            await asyncio.sleep(min(2 * seconds_from_ns(self.intake.reorder_ns), _SHORT_SECONDS))
            record = self.record(request)
        if record is None:
            return msgspec.json.encode({"joules": None, "final": False, "unknown": Unknown.NOT_KNOWN})
        fields = msgspec.structs.asdict(record)
        return msgspec.json.encode({name: fields[name] for name in ENERGY_FIELDS})

    def accounts(self, accounts: list[DeviceAccount]) -> list[DeviceAccount]:
        """Return the accounts with the age of their newest reading added."""
        now = now_ns()
        ages = self.attributor.last_samples()
        return [
            msgspec.structs.replace(a, sample_age_s=seconds_from_ns(now - ages[a.device]))
            if a.device in ages
            else a
            for a in accounts
        ]

    def settle(self) -> None:
        """Process all held events and make every record final; call it when no more events arrive."""
        self.tick(now_ns() + START_NS + self.intake.reorder_ns)
        self.attributor.flush()
        for share in self.attributor.drain():
            self._finish(share)

    def close(self) -> None:
        """Close the timeline and the exporters. May wait for the network; can be called from any thread."""
        if self._recorder is not None:
            try:
                self._recorder.close()
            except OSError as error:
                _log.error("record: the end of the timeline cannot be written: %s", error.strerror)
        self._exporters.close()


def put_aside(path: Path) -> None:
    """Rename an existing recording: ``t.jsonl.zst`` becomes ``t-1.jsonl.zst``, or the next free number.

    Raises ``OSError``.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    stem, dot, suffixes = path.name.partition(".")
    earlier = re.compile(rf"{re.escape(stem)}-(\d+){re.escape(dot + suffixes)}")
    taken = (earlier.fullmatch(other.name) for other in path.parent.iterdir())
    number = max((int(found[1]) for found in taken if found), default=0) + 1
    path.rename(path.with_name(f"{stem}-{number}{dot}{suffixes}"))
