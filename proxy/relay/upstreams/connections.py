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
    """Receives one response, in order: heads, body, end; ``on_lost`` replaces the end on failure."""

    def on_interim(self, head: ResponseHead) -> None:
        """Handle an interim head (1xx but not 101)."""

    def on_head(self, head: ResponseHead) -> None:
        """Handle the final head (or 101)."""

    def on_body(self, raw: bytes, pieces: list[bytes]) -> None:
        """Handle bytes of the body: as received, and their payload."""

    def on_end(self) -> None:
        """Handle the end of the response."""

    def on_read(self) -> None:
        """Handle the end of one read, after the calls for its bytes."""

    def on_lost(self, reason: str) -> None:
        """Handle a failed connection or a malformed response."""

    def on_writable(self, *, writable: bool) -> None:
        """Handle a change of back-pressure: false while the backend reads too slowly."""


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
        self.forwarder: StreamForwarder | None = None  # forwards matching chunks before the handler sees them
        self.used = False  # it carried a request before this one
        self.answered = False  # a byte of this answer came
        self.unprocessed = False  # it failed before the backend received any byte of the request
        self._sent_bytes = 0  # of this request
        self.idle_since_ns = 0

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._transport is not None

    def send_request(self, handler: ResponseHandler, method: bytes, data: bytes) -> None:
        """Send a request; its response goes to ``handler``."""
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
        """Stop parsing: bytes are passed on as they are from now on."""
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
        """Abort the connection without notifying its handler."""
        self._handler = self.forwarder = None
        if self._transport is not None:
            self._transport.abort()

    def close(self, seconds: float) -> None:
        """Close once all is written, at the latest after ``seconds``; do not notify the handler."""
        self._handler = self.forwarder = None
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(seconds, self.abort)

    def release(self, *, reusable: bool) -> None:
        """End the request: keep the connection for another one where possible, else abort it."""
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
        """Forward by the fast path, else parse bytes of a response."""
        forwarder = self.forwarder
        if forwarder is not None:
            if forwarder.forward(data):
                return
            self.forwarder = None
        handler = self._handler
        if handler is None:
            self.pool.forget(self)  # unsolicited bytes belong to no request
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
        """Ignore EOF; ``connection_lost`` follows, because the transport closes."""

    def connection_lost(self, error: Exception | None) -> None:
        """End a response that has no length, or report the failure."""
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
        """Abort the connection and report the failure to the handler."""
        handler = self._handler
        self.abort()
        if handler is not None:
            handler.on_lost(reason)

    def pause_writing(self) -> None:
        """Report back-pressure to the handler: the backend reads too slowly."""
        if self._handler is not None:
            self._handler.on_writable(writable=False)

    def resume_writing(self) -> None:
        """Report to the handler that the backend has caught up."""
        if self._handler is not None:
            self._handler.on_writable(writable=True)


def limit_unsent(sock: socket.socket, size: int) -> None:
    """Limit unsent data in the kernel to ``size`` bytes (TCP_NOTSENT_LOWAT) so that back-pressure works.

    Without a limit the kernel buffers megabytes before a slow reader is noticed.
    """
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def connect_failure(error: Exception, config: RelayConfig) -> tuple[int, str, str]:
    """Return the error for the client after a failure of :meth:`Pool.connect`: status, message, code."""
    if isinstance(error, TimeoutError):
        limit = config.connect_timeout_seconds
        return 504, f"no connection to the backend within {limit:g} s", "backend_timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the backend's certificate is not accepted: {error.verify_message}"
        return 502, message, "backend_certificate"
    return 502, f"the backend cannot be reached: {error}", "backend_unreachable"


class ConnectionPool:
    """Open connections to one backend, kept between requests."""

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
        """Apply new limits to connections opened from now on."""
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
        """Remove a closed connection from the idle ones."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def connect(self) -> UpstreamConnection:
        """Open a connection; raise ``OSError``, which includes ``TimeoutError``."""
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
        if (
            made.connected
        ):  # not in connection_made: uvloop does not call connection_lost for a cancelled connect
            self.open.add(made)
        return made

    def sweep(self, now: int) -> None:
        """Close connections that were idle for too long."""
        oldest = self._oldest(now)
        for connection in [c for c in self._idle if c.idle_since_ns < oldest]:
            self._idle.remove(connection)
            connection.abort()

    def _oldest(self, now: int) -> int:
        return now - ns_from_seconds(self._config.upstream_idle_timeout_seconds)

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._idle.pop().abort()
