"""The meter process: sampler thread, relay socket, admin port; one tick that moves everything on."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop
from aiohttp import web

from proxy.clock import now_ns
from proxy.config import Backend, ConfigError, MeterConfig
from proxy.core.channel import Ask, FrameBuffer, Told, decode_to_meter, encode_frame
from proxy.core.events import Sample
from proxy.energy.meter import ProcessSource
from proxy.energy.sampler import Sampler
from proxy.energy.select import Choice, choose
from proxy.evidence.watch import Watch
from proxy.exporters.base import Exporter, Exporters
from proxy.exporters.otel import otel_exporter
from proxy.exporters.prometheus import PrometheusExporter, Snapshot
from proxy.exporters.store import LedgerStore
from proxy.meter.admin import application
from proxy.meter.meter import Meter

TICK_SECONDS: Final = 0.02
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_log = logging.getLogger(__name__)


class Process:
    """A running meter; ``admin_port`` is where it answers."""

    def __init__(self, config: MeterConfig, backends: Sequence[Backend], socket: str, choice: Choice) -> None:
        self._config = config
        self._socket = socket
        self._metrics = PrometheusExporter(self._snapshot)
        exporters: list[Exporter] = [self._metrics]
        if config.ledger is not None:
            exporters.append(LedgerStore(Path(config.ledger)))
        if (spans := otel_exporter(config.otlp)) is not None:
            exporters.append(spans)
        self.meter = Meter(config, backends, choice.found, choice.name, Exporters(exporters))
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
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.admin_port = 0

    def _snapshot(self) -> Snapshot:
        meter = self.meter
        accounts = meter.accounts(meter.attributor.accounts())
        return Snapshot(accounts, meter.ledger.in_flight(), meter.intake.dropped)

    def _sampled(self, samples: list[Sample]) -> None:
        """In the sampler's thread: hop to the loop."""
        if not self._loop.is_closed():
            oldest = now_ns() - min(sample.t_ns for sample in samples)
            self._loop.call_soon_threadsafe(self.meter.intake.add_samples, samples, oldest)

    async def start(self) -> None:
        """Listen for relays and on the admin port, start to sample."""
        config = self._config
        self._server = await self._loop.create_unix_server(lambda: _RelayProtocol(self), self._socket)
        app = application(self.meter, self._metrics, config.admin_token)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, config.admin.host, config.admin.port)
        await site.start()
        self.admin_port = self._runner.addresses[0][1]
        for sampler in self._samplers:
            sampler.start()
        self.keep(self._tick())
        if self._samplers:
            self.keep(self._watch.run())

    async def _tick(self) -> None:
        deadline = self._loop.time()
        while True:
            deadline = max(deadline + TICK_SECONDS, self._loop.time())
            await asyncio.sleep(deadline - self._loop.time())
            self.meter.tick(now_ns())

    def keep(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine until the end; how it ends is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("meter: %r", error, exc_info=error)

    async def close(self) -> None:
        """Stop sampling, settle every record, close."""
        for sampler in self._samplers:
            await asyncio.to_thread(sampler.stop)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        await asyncio.to_thread(self.meter.close)
        if self._runner is not None:
            await self._runner.cleanup()


class _RelayProtocol(asyncio.Protocol):
    """One relay's connection."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._frames = FrameBuffer()
        self._connection = process.meter.intake.connected()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                for message in decode_to_meter(body):
                    if isinstance(message, Ask):
                        self._process.keep(self._tell(message))
                    else:
                        self._process.meter.take(self._connection, message)
        except (msgspec.MsgspecError, ValueError) as error:
            _log.error("a relay sent what is no frame: %s", error)
            if self._transport is not None:
                self._transport.abort()

    async def _tell(self, ask: Ask) -> None:
        energy = await self._process.meter.tell(ask)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame([Told(ask.ask, energy)]))

    def connection_lost(self, _error: Exception | None) -> None:
        self._process.meter.intake.lost(self._connection, now_ns())


def run(config: MeterConfig, backends: Sequence[Backend], meter_socket: str, ready_fd: int) -> int:
    """Run until SIGTERM; writes one byte to ``ready_fd`` when it listens. Exit status 0.

    Raises :class:`ConfigError` for a source, file or address that cannot be used.
    """
    if config.admin.host not in _LOOPBACK and config.admin_token is None:
        raise ConfigError(f"admin: {config.admin.host} is not loopback: give an admin_token, or 127.0.0.1")
    choice = choose(config)
    for line in choice.lines:
        sys.stderr.write(f"jouleproxy: {line}\n")
    sys.stderr.flush()
    return uvloop.run(_run(config, backends, meter_socket, ready_fd, choice))


async def _run(
    config: MeterConfig, backends: Sequence[Backend], meter_socket: str, ready_fd: int, choice: Choice
) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    process = Process(config, backends, meter_socket, choice)
    await process.start()
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    await stop.wait()
    await process.close()
    return 0
