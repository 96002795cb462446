# Compiled by mypyc: see setup.py.
"""Connections to backends: one protocol each, kept open between requests."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from proxy.clock import now_ns
from proxy.config import Backend, RelayConfig
from proxy.config.origin import origin_of, tls_of
from proxy.relay.exchange.replay import none_acknowledged
from proxy.relay.http.framing import FramingError, UntilClose
from proxy.relay.http.header_cache import ResponseHeadCache
from proxy.relay.http.heads import HeadError, ResponseHead
from proxy.relay.response.fast_path import StreamForwarder
from proxy.units import ns_from_seconds

_END: Final = b"\r\n\r\n"


class ResponseHandler(Protocol):
    """Who uses a connection: told of the answer in order, ``on_lost`` instead of its end."""

    def on_interim(self, head: ResponseHead) -> None:
        """A head before the final one (1xx, not 101) came."""

    def on_head(self, head: ResponseHead) -> None:
        """The final head (or 101) came."""

    def on_body(self, raw: bytes, pieces: list[bytes]) -> None:
        """Bytes of the body: as they came, and the payload in them."""

    def on_end(self) -> None:
        """The answer is whole."""

    def on_read(self) -> None:
        """All bytes of one read were told."""

    def on_lost(self, reason: str) -> None:
        """The connection died, or said what is no HTTP."""

    def on_writable(self, *, writable: bool) -> None:
        """The backend reads too slowly, or has caught up."""


class UpstreamConnection:
    """One connection to a backend: an ``asyncio.Protocol`` by its methods, as the client's is."""

    def __init__(self, pool: "ConnectionPool", limit: int, high_water: int) -> None:
        self.pool = pool
        self._limit = limit
        self._high_water = high_water
        self._handler: ResponseHandler | None = None
        self._method = b""
        self._buffer = b""
        self._answers = ResponseHeadCache()
        self._head: ResponseHead | None = None
        self._tunnel = False
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.forwarder: StreamForwarder | None = None  # forwards what matches before the asker sees it
        self.used = False  # it carried a request before this one
        self.answered = False  # a byte of this answer came
        self.unprocessed = False  # it failed, and nothing of the request had reached the backend
        self._sent_bytes = 0  # of this request
        self.idle_since_ns = 0

    @property
    def connected(self) -> bool:
        """Whether the connection is there (still)."""
        return self._transport is not None

    def send_request(self, handler: ResponseHandler, method: bytes, data: bytes) -> None:
        """Begin a request."""
        self._handler, self._method, self._head, self.answered = handler, method, None, False
        self.forwarder = None
        self._sent_bytes = 0
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if self._transport is not None:
            self._sent_bytes += len(data)
            self._transport.write(data)

    def tunnel(self) -> None:
        """From now on bytes mean nothing to us."""
        self._tunnel = True

    def pause(self, *, paused: bool) -> None:
        """Stop reading from the backend, or resume."""
        transport = self._transport
        if self._paused == paused or transport is None or transport.is_closing():
            return
        self._paused = paused
        if paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def abort(self) -> None:
        """Hang up at once; its asker hears no more."""
        self._handler = self.forwarder = None
        if self._transport is not None:
            self._transport.abort()

    def close(self, seconds: float) -> None:
        """Hang up once all is written, or when the time is up; its asker hears no more."""
        self._handler = self.forwarder = None
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(seconds, self.abort)

    def release(self, *, reusable: bool) -> None:
        """The request is over."""
        self._handler = self.forwarder = None
        usable = self._transport is not None and not self._transport.is_closing()
        if reusable and usable and not self._buffer and self._head and self._head.keep_alive:
            self.pause(paused=False)
            self.used = True
            self.pool.put(self)
        else:
            self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport.set_write_buffer_limits(self._high_water)
        if (sock := transport.get_extra_info("socket")) is not None:
            limit_unsent(sock, self._high_water)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        forwarder = self.forwarder
        if forwarder is not None:
            if forwarder.forward(data):
                return
            self.forwarder = None
        handler = self._handler
        if handler is None:
            self.pool.forget(self)  # nothing was asked: what comes now belongs to no request
            self.abort()
            return
        self.answered = True
        try:
            self._read(handler, data)
        except (FramingError, HeadError) as error:
            self.lose(str(error))
            return
        handler.on_read()

    def _read(self, handler: ResponseHandler, data: bytes) -> None:
        if self._tunnel:
            handler.on_body(data, [data])
            return
        head = self._head
        if head is None:
            head, data = self._read_heads(handler, self._buffer + data)
            if head is None:
                return
            if head.status == 101:
                if data:
                    handler.on_body(data, [data])
                return
        body = head.body
        if body is None or body.done:
            self._buffer = data
        elif data:
            pieces, used = body.feed(data)
            self._buffer = data[used:]
            handler.on_body(data if used == len(data) else data[:used], pieces)
        if body is None or body.done:
            handler.on_end()  # bytes after the end belong to no answer: the connection is not kept

    def _read_heads(self, handler: ResponseHandler, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """Read heads up to the final one: it, and the bytes after it."""
        self._buffer = b""
        while True:
            end = data.find(_END)
            if max(end, 0 if end >= 0 else len(data)) > self._limit:
                raise HeadError(502, f"the backend's head is longer than {self._limit} bytes")
            if end < 0:
                self._buffer = data
                return None, b""
            head = self._answers.parse(data[: end + 4], self._method)
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                self._head = head
                handler.on_head(head)
                return head, data
            handler.on_interim(head)

    def eof_received(self) -> None:
        """The backend sends no more; the transport closes."""

    def connection_lost(self, error: Exception | None) -> None:
        """The connection ended: the end of an answer without a length, else a failure."""
        self.unprocessed = error is None and self._none_acknowledged()
        self.forwarder = self._transport = None
        self.pool.open.discard(self)
        self.pool.forget(self)
        handler, head = self._handler, self._head
        if handler is None:
            return
        if head is not None and isinstance(head.body, UntilClose) and error is None:
            handler.on_end()
            handler.on_read()
        else:
            self.lose(str(error) if error else "the backend closed the connection")

    def _none_acknowledged(self) -> bool:
        transport = self._transport
        if self._handler is None or self.answered or transport is None or self.pool.encrypted:
            return False
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX:  # which counts otherwise
            return False
        return none_acknowledged(sock.fileno(), self._sent_bytes)

    def lose(self, reason: str) -> None:
        """It is of no more use."""
        handler = self._handler
        self.abort()
        if handler is not None:
            handler.on_lost(reason)

    def pause_writing(self) -> None:
        """The backend reads too slowly."""
        if self._handler is not None:
            self._handler.on_writable(writable=False)

    def resume_writing(self) -> None:
        """The backend has caught up."""
        if self._handler is not None:
            self._handler.on_writable(writable=True)


def limit_unsent(sock: socket.socket, size: int) -> None:
    """Have the kernel hold little that is not yet sent, megabytes otherwise: who reads slowly is noticed."""
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def connect_failure(error: Exception, config: RelayConfig) -> tuple[int, str, str]:
    """Return what a client is told of an error of :meth:`Pool.connect`: status, message, code."""
    if isinstance(error, TimeoutError):
        limit = config.connect_timeout_seconds
        return 504, f"no connection to the backend within {limit:g} s", "backend_timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the backend's certificate is not accepted: {error.verify_message}"
        return 502, message, "backend_certificate"
    return 502, f"the backend cannot be reached: {error}", "backend_unreachable"


class ConnectionPool:
    """Connections to one backend."""

    def __init__(self, backend: Backend, config: RelayConfig) -> None:
        origin = self._origin = origin_of(backend.url)
        self.url = backend.url
        self.address, self.port = origin.server
        self.host = origin.authority.encode("latin-1")
        self.prefix = origin.prefix.encode("latin-1")
        self._config = config
        self._idle: list[UpstreamConnection] = []
        self.open: set[UpstreamConnection] = set()  # in use or kept
        self._tls = tls_of(backend)
        self.encrypted = self._tls is not None

    def reconfigure(self, config: RelayConfig) -> None:
        """New limits, for connections to come."""
        self._config = config

    def acquire(self) -> UpstreamConnection | None:
        """Return an open connection, the last one used; None where there is none.

        One that was idle too long is not used, although :meth:`sweep` did not close it yet: the backend may
        be about to.
        """
        if not self._idle:
            return None
        if self._idle[-1].idle_since_ns < self._oldest(now_ns()):
            self.close()  # the others were idle for longer
            return None
        return self._idle.pop()

    def put(self, connection: UpstreamConnection) -> None:
        """Keep an open connection."""
        connection.idle_since_ns = now_ns()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """It closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def connect(self) -> UpstreamConnection:
        """A new connection; raises ``OSError``, ``TimeoutError`` among them."""
        config = self._config
        make: Callable[[], Any] = lambda: UpstreamConnection(  # noqa: E731 - a factory; a protocol by its methods
            self, config.max_head_bytes, config.high_water_bytes
        )
        made: UpstreamConnection
        loop, origin = asyncio.get_running_loop(), self._origin
        async with asyncio.timeout(config.connect_timeout_seconds):
            if origin.socket is not None:
                _, made = await loop.create_unix_connection(make, origin.socket)
            else:
                _, made = await loop.create_connection(make, origin.host, origin.port, ssl=self._tls)
        if made.connected:  # not in connection_made: uvloop forgets to say of a cancelled one that it is lost
            self.open.add(made)
        return made

    def sweep(self, now: int) -> None:
        """Close what was idle too long."""
        oldest = self._oldest(now)
        for connection in [c for c in self._idle if c.idle_since_ns < oldest]:
            self._idle.remove(connection)
            connection.abort()

    def _oldest(self, now: int) -> int:
        return now - ns_from_seconds(self._config.upstream_idle_timeout_seconds)

    def close(self) -> None:
        """Close all that are idle."""
        while self._idle:
            self._idle.pop().abort()
