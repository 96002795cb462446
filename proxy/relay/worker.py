"""A relay worker: its server, its connections to the backends, its link to the meter; drain at the end."""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast

import uvloop

from proxy.clock import now_ns
from proxy.config import Backend, Config, ConfigError, RelayConfig
from proxy.config.origin import serving_tls
from proxy.ipc import BackendState, RelayState
from proxy.relay.client_connection import ClientConnection
from proxy.relay.context import WorkerContext
from proxy.relay.jobs.table import JobTable
from proxy.relay.meter_link import MeterLink
from proxy.relay.upstreams.balancer import Balancer
from proxy.relay.upstreams.connections import ConnectionPool, limit_unsent
from proxy.relay.upstreams.health_checks import HealthChecks
from proxy.relay.upstreams.sticky import AffinityKeys
from proxy.subprocesses import say_ready

_SWEEP_SECONDS: Final = 0.25  # period of checking timeouts, so their resolution
_TELL_EVERY: Final = 4  # sweeps between two reports to the meter
_log = logging.getLogger(__name__)


class Worker:
    """A relay worker; call ``start``, later ``close``. ``port`` is the port it listens on."""

    def __init__(self, config: RelayConfig, backends: Sequence[Backend], meter_socket: str) -> None:
        self._config = config
        self._link = MeterLink(meter_socket, config.event_buffer_messages)
        balancer = Balancer(backends, config, now_ns())
        pools = {slot: ConnectionPool(slot.backend, config) for slot in balancer.slots}
        jobs = JobTable(config, pools)
        self._context = WorkerContext(config, self._link, balancer, pools, jobs, _keys(config, backends))
        self._checks = HealthChecks(config, balancer, pools.__getitem__)
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweeps = 0
        self.port = 0

    async def start(self) -> None:
        """Listen (``SO_REUSEPORT``: several workers share a port); raises ``OSError`` if it cannot."""
        config, context = self._config, self._context
        self._tls = serving_tls(config.tls_certificate, config.tls_key)
        await self._checks.start()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: cast(asyncio.Protocol, ClientConnection(context)),  # it is one by its methods
            config.listen.host,
            config.listen.port,
            reuse_port=True,
            backlog=1024,
            ssl=self._tls,
            ssl_handshake_timeout=config.head_timeout_seconds if self._tls else None,
        )
        for listening in self._server.sockets:  # inherited by what is accepted
            limit_unsent(listening, config.high_water_bytes)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep()
        await self._link.open()  # a connected relay is one that listens: the meter is ready with the first

    def reconfigure(self, config: RelayConfig, backends: Sequence[Backend]) -> None:
        """Apply new settings to new requests; running requests and the listening address keep the old."""
        context = self._context
        if self._tls is not None and config.tls_certificate is not None:
            try:
                serving_tls(
                    config.tls_certificate, config.tls_key
                )  # validate first: loading a wrong pair would damage the context in use
                self._tls.load_cert_chain(config.tls_certificate, config.tls_key)
            except (OSError, ConfigError) as error:
                _log.error("TLS certificate not reloaded, keeping the old one: %s", error)
        self._config = context.config = config
        context.jobs.reconfigure(config)
        context.balancer.reconfigure(backends, config, now_ns())
        for pool in context.pools.values():
            pool.reconfigure(config)
        for slot in context.balancer.slots:
            if slot not in context.pools:
                context.pools[slot] = ConnectionPool(slot.backend, config)
        context.keys = _keys(config, backends)
        self._checks.reconfigure(config)

    def _sweep(self) -> None:
        """End all waits that are over their time."""
        now = now_ns()
        context = self._context
        for client in tuple(context.clients):
            client.sweep(now)
        for slot, pool in tuple(context.pools.items()):
            pool.sweep(now)
            if not slot.outstanding and slot not in context.balancer.slots:
                pool.close()
                del context.pools[slot]
        context.jobs.sweep(now)
        if self._sweeps % _TELL_EVERY == 0:
            self._tell()
        self._sweeps += 1
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _tell(self) -> None:
        """Report the state of the backends and the number of open connections to the meter."""
        for slot in self._context.balancer.slots:
            health, name = slot.health, slot.backend.name or slot.backend.url
            models = tuple(sorted(slot.models))
            self._link.report(
                BackendState(name, health.state, slot.outstanding, health.since_ns, health.reason, models)
            )
        context = self._context
        connections = sum(len(pool.open) for pool in context.pools.values())
        tasks = len(asyncio.all_tasks())
        self._link.report(
            RelayState(os.getpid(), len(context.clients), len(self._link.running), tasks, connections)
        )

    async def close(self) -> None:
        """Drain: stop accepting, let responses end within the drain timeout, then close everything."""
        context = self._context
        context.draining = True
        self._checks.close()
        self._link.announce_drain()
        if self._server is not None:
            self._server.close()
        for client in tuple(context.clients):
            if not client.busy:
                client.close()
        try:
            async with asyncio.timeout(self._config.drain_timeout_seconds):
                while context.clients:  # noqa: ASYNC110 - a drain is rare, and need not be exact
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("drain timeout: %d connections aborted", len(context.clients))
            for client in tuple(context.clients):
                client.abort()
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
        context.jobs.close()
        for pool in context.pools.values():
            pool.close()
        await asyncio.gather(*context.tasks, return_exceptions=True)
        await self._link.close()


def _keys(config: RelayConfig, backends: Sequence[Backend]) -> AffinityKeys | None:
    return AffinityKeys(config) if config.sticky != "off" and len(backends) > 1 else None


def run(
    config: RelayConfig,
    backends: Sequence[Backend],
    meter_socket: str,
    ready_fd: int,
    load: Callable[[], Config] | None = None,
) -> int:
    """Run a worker until SIGTERM; writes one byte to ``ready_fd`` when it listens. Exit status 0.

    ``load`` gives the settings again, at SIGHUP (which is blocked until then: none is lost).
    """
    return uvloop.run(_run(config, backends, meter_socket, ready_fd, load))


async def _run(
    config: RelayConfig,
    backends: Sequence[Backend],
    meter_socket: str,
    ready_fd: int,
    load: Callable[[], Config] | None,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker(config, backends, meter_socket)
    await worker.start()
    if load is not None:
        loop.add_signal_handler(signal.SIGHUP, _reload, worker, load)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    say_ready(ready_fd)
    await stop.wait()
    await worker.close()
    return 0


def _reload(worker: Worker, load: Callable[[], Config]) -> None:
    try:
        config = load()
        worker.reconfigure(config.relay, config.backends)
    except ConfigError as error:  # the supervisor read it well a moment ago
        _log.error("settings not reloaded, keeping the old ones: %s", error)
    else:
        logging.getLogger().setLevel(config.log_level.upper())
