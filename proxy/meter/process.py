"""The meter process: sampler threads, socket for relays, admin port, and a timer that calls the meter.

:class:`Process` connects the parts and owns their life cycle; :func:`run` is the entry point that the
supervisor calls in the child process.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec
import uvloop
from aiohttp import web

from proxy.clock import now_ns
from proxy.config import Backend, Config, ConfigError, MeterConfig
from proxy.config.origin import origin_of
from proxy.config.settings import is_loopback
from proxy.core.events import Sample
from proxy.energy.choice import Choice, choose
from proxy.energy.sampling.sampler import Sampler
from proxy.energy.source import ProcessSource
from proxy.evidence.watch import Watch
from proxy.exporters import otel_settings
from proxy.exporters.base import Exporter, Exporters
from proxy.exporters.conventions import Server
from proxy.exporters.metrics import Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from proxy.exporters.store import LedgerStore
from proxy.ipc import EnergyQuery, EnergyReply, FrameBuffer, decode_to_meter, encode_frame
from proxy.meter.admin import application
from proxy.meter.feed import Feed
from proxy.meter.heartbeat import Heartbeat
from proxy.meter.meter import Meter
from proxy.subprocesses import say_ready
from proxy.units import seconds_from_ns

if TYPE_CHECKING:
    from proxy.exporters.otel import OtelExporter

TICK_SECONDS: Final = 0.02  # as often as relays send their events
_GONE_SECONDS: Final = 0.5  # longest wait at the end for the last messages of relays
_LAST_READING_SECONDS: Final = 1.0  # and for the readings after the last request
_log = logging.getLogger(__name__)


class Process:
    """A running meter. Create it inside an event loop, ``start`` it, await ``ended``, then ``close`` it.

    Args:
        config: The settings of the meter.
        backends: The configured backends.
        socket: Path of the Unix socket for relays.
        choice: The opened sources.

    Attributes:
        admin_port: Port of the admin endpoints once it is started.
        ended: Done when the process must end; its result is the exit status.

    Raises:
        ConfigError: as :class:`~proxy.meter.meter.Meter`, and for an unusable ``--otlp`` or ledger file.
    """

    def __init__(self, config: MeterConfig, backends: Sequence[Backend], socket: str, choice: Choice) -> None:
        self._config = config
        self._socket = socket
        self._metrics = PrometheusExporter(self._snapshot)
        exporters: list[Exporter] = [self._metrics]
        if config.ledger is not None:
            exporters.append(LedgerStore(Path(config.ledger), config.ledger_max_bytes))
        kinds = {found.device.id: found.device.kind for found in choice.found}
        self._servers = {b.name: origin_of(b.url).server for b in backends}
        self._otel = _otel(config.otlp, self._servers, kinds)
        if self._otel is not None:
            exporters.append(self._otel)
        self._exporters = Exporters(exporters)
        self._heartbeat = Heartbeat(Path(f"{socket}.alive"))
        resumed_ns = self._heartbeat.previous_ns
        self.meter = Meter(
            config, backends, choice.found, choice.name, self._exporters, choice.left_out, resumed_ns
        )
        self._feed = Feed(self.meter)
        self._loop = asyncio.get_running_loop()
        self._samplers = [Sampler(o.source, self._sampled, config.sample_hz) for o in choice.opened]
        processes = [o.source.processes for o in choice.opened if isinstance(o.source, ProcessSource)]
        self._watch = Watch(
            backends,
            self.meter.mapped,
            self.meter.own_view.look,
            self.meter.intake.add_evidence,
            processes[0] if processes else None,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.relays: set[asyncio.WriteTransport] = set()
        self.leaving = False  # relays that disconnect from now on continue with the next meter
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.admin_port = 0

    def _snapshot(self) -> Snapshot:
        meter = self.meter
        accounts = meter.accounts(meter.attributor.accounts())
        up = {view.name: view.state == "up" for view in meter.backends() if view.state is not None}
        return Snapshot(
            accounts, meter.ledger.in_flight(), meter.intake.dropped, self._exporters.failures, up
        )

    def _sampled(self, samples: list[Sample]) -> None:
        """Pass samples to the event loop; called in the thread of a sampler."""
        if not self._loop.is_closed():
            oldest = now_ns() - min(sample.t_ns for sample in samples)
            self._loop.call_soon_threadsafe(self.meter.intake.add_samples, samples, oldest)

    async def start(self) -> None:
        """Listen for relays and on the admin port, and start the samplers."""
        config = self._config
        self._server = await self._loop.create_unix_server(lambda: _RelayProtocol(self), self._socket)
        app = application(self.meter, self._metrics, self._feed, config.admin_token)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.admin.host, config.admin.port)
        await site.start()
        self.admin_port = self._runner.addresses[0][1]
        for sampler in self._samplers:
            sampler.start()
        self.keep(self._tick())
        self.keep(self._observe())
        if self._samplers:
            self.keep(self._watch.run())

    def set_backends(self, backends: Sequence[Backend]) -> None:
        """Replace the backends, for future requests; settings that cannot be used are logged."""
        try:
            self.meter.set_backends(backends)
        except ConfigError as error:
            _log.error("the meter keeps the old backends, joules of new ones are unknown: %s", error)
            return
        self._servers.update({b.name: origin_of(b.url).server for b in backends})
        self._watch.set_backends(backends, self.meter.mapped)

    async def _tick(self) -> None:
        deadline = self._loop.time()
        while True:
            deadline = max(deadline + TICK_SECONDS, self._loop.time())
            await asyncio.sleep(deadline - self._loop.time())
            try:
                self.meter.tick(t_ns := now_ns())
                self._heartbeat.beat(t_ns)
            except Exception:
                self.end(1)  # a meter without its timer measures nothing: the supervisor starts a new one
                raise

    async def _observe(self) -> None:
        """Once a second, record the history of the dashboard and the OpenTelemetry gauges."""
        while True:
            self._feed.record_point()
            if self._otel is not None:
                self._otel.observe(self.meter.attributor.accounts())
            await asyncio.sleep(1.0)

    def end(self, status: int) -> None:
        """Make ``run`` return with this exit status; the first call counts."""
        if not self.ended.done():
            self.ended.set_result(status)

    def keep(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine until ``close``; an exception in it is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("meter: a task failed: %r", error, exc_info=error)

    async def close(self) -> None:
        """Process the last messages and readings, stop sampling, make all records final, export them."""
        if self._server is not None:
            self._server.close()
        await self._relays_gone()
        await self._last_readings()
        for sampler in self._samplers:
            await asyncio.to_thread(sampler.stop)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.meter.settle()
        await asyncio.to_thread(self.meter.close)
        self._heartbeat.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _last_readings(self) -> None:
        """Wait for the readings after the end of the last requests, at most ``_LAST_READING_SECONDS``."""
        deadline = self._loop.time() + _LAST_READING_SECONDS
        await asyncio.sleep(seconds_from_ns(self.meter.intake.reorder_ns) + TICK_SECONDS)
        while self._samplers and self.meter.ledger.pending() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK_SECONDS)

    async def _relays_gone(self) -> None:
        """Wait for the relays to disconnect, at most ``_GONE_SECONDS``, then disconnect them.

        A relay that continues (reload of the settings) reports its running requests to the next meter.
        """
        deadline = self._loop.time() + _GONE_SECONDS
        while self.relays and self._loop.time() < deadline:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.01)
        self.leaving = True
        for transport in list(self.relays):
            transport.close()
        while self.relays:  # noqa: ASYNC110 - closing takes a turn of the loop
            await asyncio.sleep(0)


def _otel(
    endpoint: str | None, servers: Mapping[str, Server], kinds: Mapping[str, str]
) -> "OtelExporter | None":
    """Return the OTLP exporter, or None if none is configured.

    One that cannot be set up is logged, and the meter continues without it. The SDK is imported only when it
    is needed: it reads the environment during import, and raises for values that it does not support.

    Raises:
        ConfigError: if ``--otlp`` is not a usable URL.
    """
    settings = otel_settings.read(endpoint, os.environ)
    for line in settings.notices:
        sys.stderr.write(f"jouleproxy: {line}\n")
    if settings.traces is None and settings.metrics is None:
        return None
    settings.apply(os.environ)
    try:
        from proxy.exporters.otel import otel_exporter  # noqa: PLC0415 - see above

        return otel_exporter(endpoint, servers, kinds)
    except Exception as error:  # noqa: BLE001 - the SDK raises any type for its environment
        _log.error("otlp: exporter failed to start, nothing is exported: %r", error)
        return None


class _RelayProtocol(asyncio.Protocol):
    """Connection of one relay."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._frames = FrameBuffer()
        self._connection = process.meter.intake.connected()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's class is not a subclass
        self._process.relays.add(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                for query in self._process.meter.receive(self._connection, decode_to_meter(body)):
                    self._process.keep(self._reply(query))
        except (msgspec.MsgspecError, ValueError) as error:
            _log.error("malformed frame from a relay: %s", error)
            if self._transport is not None:
                self._transport.abort()

    async def _reply(self, query: EnergyQuery) -> None:
        energy = await self._process.meter.reply(self._connection, query)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame([EnergyReply(query.number, energy)]))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._transport is not None:
            self._process.relays.discard(self._transport)
        if not self._process.leaving:
            self._process.meter.connection_lost(self._connection, now_ns())


def run(
    config: MeterConfig,
    backends: Sequence[Backend],
    meter_socket: str,
    ready_fd: int,
    load: Callable[[], Config] | None = None,
) -> int:
    """Run the meter until SIGTERM (exit status 0) or until it fails (1).

    Args:
        config: The settings of the meter.
        backends: The configured backends.
        meter_socket: Path of the Unix socket for relays.
        ready_fd: File descriptor to which one byte is written when the meter listens.
        load: Reads the settings again at SIGHUP; only backends and log level are applied.

    Returns:
        The exit status.

    Raises:
        ConfigError: for a source, file or address that cannot be used.
    """
    if not is_loopback(config.admin.host) and not config.admin_token:
        raise ConfigError(f"admin: {config.admin.host} is not loopback: give an admin_token, or 127.0.0.1")
    choice = choose(config)
    for line in choice.lines:
        sys.stderr.write(f"jouleproxy: {line}\n")
    sys.stderr.flush()
    return uvloop.run(_run(lambda: Process(config, backends, meter_socket, choice), ready_fd, load))


async def _run(make: Callable[[], Process], ready_fd: int, load: Callable[[], Config] | None) -> int:
    process, loop = make(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, process.end, 0)
    await process.start()
    if load is not None:
        loop.add_signal_handler(signal.SIGHUP, _reload, process, load)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    say_ready(ready_fd)
    status = await process.ended
    await process.close()
    return status


def _reload(process: Process, load: Callable[[], Config]) -> None:
    try:
        config = load()
    except ConfigError as error:  # changed since the supervisor read them
        _log.error("settings not reloaded, the old ones remain in effect: %s", error)
    else:
        logging.getLogger().setLevel(config.log_level.upper())
        process.set_backends(config.backends)
