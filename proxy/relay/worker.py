"""A relay worker: its server, its connections to the backend, its link to the meter; drain at the end."""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import Sequence

import aiohttp
import uvloop
from aiohttp import web

from proxy.config import Backend, ConfigError, RelayConfig
from proxy.relay.handler import Handler
from proxy.relay.link import MeterLink

_log = logging.getLogger(__name__)


class Worker:
    """A running worker; ``port`` is where it listens."""

    def __init__(self, config: RelayConfig, backend: Backend, meter_socket: str) -> None:
        self._config = config
        self._backend = backend
        self._link = MeterLink(meter_socket, config.event_buffer_messages)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen (``SO_REUSEPORT``: several workers share a port); raises ``OSError`` if it cannot."""
        config = self._config
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=config.connect_timeout_seconds, sock_read=config.stall_timeout_seconds
        )
        secure = ssl.create_default_context(cafile=self._backend.ca_file)
        if not self._backend.verify_tls:
            secure.check_hostname, secure.verify_mode = False, ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ssl=secure, keepalive_timeout=config.upstream_idle_timeout_seconds
            ),
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=config.high_water_bytes,
        )
        server = web.Server(
            Handler(config, self._backend, self._session, self._link),
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=config.client_idle_timeout_seconds,
            max_headers=256,
            max_field_size=config.max_head_bytes,
            max_line_size=config.max_head_bytes,
            read_bufsize=config.high_water_bytes,
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=config.drain_timeout_seconds)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner,
            config.listen.host,
            config.listen.port,
            reuse_port=True,
            ssl_context=self._server_tls(),
        )
        await site.start()
        self.port = self._runner.addresses[0][1]
        await self._link.open()  # a connected relay is one that listens: the meter is ready with the first

    def _server_tls(self) -> ssl.SSLContext | None:
        if self._config.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
        return context

    async def close(self) -> None:
        """Drain: take no more, let running answers end within the drain time, tell the meter, close."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._link.close()
        if self._session is not None:
            await self._session.close()


def run(config: RelayConfig, backends: Sequence[Backend], meter_socket: str, ready_fd: int) -> int:
    """Run a worker until SIGTERM; writes one byte to ``ready_fd`` when it listens. Exit status 0.

    Raises :class:`ConfigError` for more than one backend: choosing among several is not built yet.
    """
    if len(backends) != 1:
        raise ConfigError(
            f"upstream: give exactly one URL, not {len(backends)}: one backend is served so far"
        )
    return uvloop.run(_run(config, backends[0], meter_socket, ready_fd))


async def _run(config: RelayConfig, backend: Backend, meter_socket: str, ready_fd: int) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker(config, backend, meter_socket)
    await worker.start()
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    await stop.wait()
    await worker.close()
    return 0
