"""A relay worker: its server, its connections to the backends, its link to the meter; drain at the end."""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Sequence
from typing import Final

import uvloop

from proxy.clock import now_ns
from proxy.config import Backend, RelayConfig
from proxy.relay.balancer import Balancer
from proxy.relay.client import Client
from proxy.relay.link import MeterLink
from proxy.relay.shared import Shared
from proxy.relay.upstream import Pool

_SWEEP_SECONDS: Final = 0.25  # how exactly timeouts are kept
_log = logging.getLogger(__name__)


class Worker:
    """A running worker; ``port`` is where it listens."""

    def __init__(self, config: RelayConfig, backends: Sequence[Backend], meter_socket: str) -> None:
        self._config = config
        self._link = MeterLink(meter_socket, config.event_buffer_messages)
        balancer = Balancer(backends)
        pools = {slot: Pool(slot.backend, config) for slot in balancer.slots}
        self._shared = Shared(config, self._link, balancer, pools)
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen (``SO_REUSEPORT``: several workers share a port); raises ``OSError`` if it cannot."""
        config, shared = self._config, self._shared
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Client(shared),
            config.listen.host,
            config.listen.port,
            reuse_port=True,
            backlog=1024,
            ssl=self._server_tls(),
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep()
        await self._link.open()  # a connected relay is one that listens: the meter is ready with the first

    def _sweep(self) -> None:
        """End all waits that are over their time."""
        now = now_ns()
        for client in tuple(self._shared.clients):
            client.sweep(now)
        for pool in self._shared.pools.values():
            pool.sweep(now)
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _server_tls(self) -> ssl.SSLContext | None:
        if self._config.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
        return context

    async def close(self) -> None:
        """Drain: take no more, let running answers end within the drain time, tell the meter, close."""
        shared = self._shared
        shared.draining = True
        if self._server is not None:
            self._server.close()
        for client in tuple(shared.clients):
            if not client.busy:
                client.close()
        try:
            async with asyncio.timeout(self._config.drain_timeout_seconds):
                while shared.clients:  # noqa: ASYNC110 - a drain is rare, and need not be exact
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("%d answers did not end in time: cut off", len(shared.clients))
            for client in tuple(shared.clients):
                client.abort()
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
        for pool in shared.pools.values():
            pool.close()
        await asyncio.gather(*shared.tasks, return_exceptions=True)
        await self._link.close()


def run(config: RelayConfig, backends: Sequence[Backend], meter_socket: str, ready_fd: int) -> int:
    """Run a worker until SIGTERM; writes one byte to ``ready_fd`` when it listens. Exit status 0."""
    return uvloop.run(_run(config, backends, meter_socket, ready_fd))


async def _run(config: RelayConfig, backends: Sequence[Backend], meter_socket: str, ready_fd: int) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker(config, backends, meter_socket)
    await worker.start()
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    await stop.wait()
    await worker.close()
    return 0
