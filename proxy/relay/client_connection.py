# Compiled by mypyc: see setup.py.
"""The connection of a client: parse its requests one after the other, and write the responses.

Requests are validated strictly (``http.heads``, ``http.framing``) before a byte of them is forwarded. Memory
is bounded: reading pauses while a backend or the client is slow. Every wait has a timeout, which ``sweep``
enforces.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from proxy.api.errors import error_body
from proxy.clock import now_ns
from proxy.relay.context import WorkerContext
from proxy.relay.exchange.exchange import Exchange
from proxy.relay.http.framing import Body, Chunked, FramingError
from proxy.relay.http.header_cache import RequestHeadCache
from proxy.relay.http.heads import HeadError, RequestHead
from proxy.units import ns_from_seconds

_END: Final = b"\r\n\r\n"
_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    408: b"Request Timeout",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class ClientConnection:
    """One connection of a client: an ``asyncio.Protocol`` by its methods.

    Inheriting from it would make this an interpreted class in the compiled build (setup.py), twice as
    expensive per call.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._requests = RequestHeadCache()
        self._body: Body | None = None
        self._body_bytes = 0
        self._exchange: Exchange | None = None
        self._since_ns = now_ns()
        self._served = False
        self._write_paused_ns: int | None = None
        self._closing = False
        self._paused = False
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport and register this connection with the worker."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport.set_write_buffer_limits(self._context.config.high_water_bytes)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._context.clients.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Cancel the exchange: the client closed the connection."""
        self._transport = None
        self._context.clients.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    def eof_received(self) -> None:
        """Cancel the exchange at the client's EOF.

        A client that half-closes cannot be distinguished from one that left, for which no
        backend should go on computing.
        """
        self._since_ns, self._closing = now_ns(), True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._exchange is not None

    def data_received(self, data: bytes) -> None:
        """Parse bytes of requests, or forward bytes of a tunnel."""
        if self._closing:
            return
        exchange = self._exchange
        if self._body is not None:
            self._since_ns = now_ns()
            self._read_body(data)
        elif exchange is None:
            if not self._buffer:
                self._since_ns = now_ns()
            self._buffer += data
            self._next()
        elif exchange.tunnel:
            exchange.send(data)
        else:
            self._buffer += data
            if len(self._buffer) > self._context.config.high_water_bytes:
                self.pause(paused=True)

    def _next(self) -> None:
        """Start the next request, if its head is complete and the last response was written."""
        if self._write_paused_ns is not None:
            return
        buffer = self._buffer.lstrip(b"\r\n") if self._buffer[:1] in {b"\r", b"\n"} else self._buffer
        end = buffer.find(_END)
        limit = self._context.config.max_head_bytes
        if end > limit or (end < 0 and len(buffer) > limit):
            self.send_error(431, f"a head of more than {limit} bytes", "head_too_large")
            return
        if end < 0:
            self._buffer = buffer
            if b"\n\n" in buffer:
                self.send_error(400, "lines end with CRLF", "bad_request")
            return
        try:
            head = self._requests.parse(buffer[: end + 4], self._context.config.max_body_bytes)
        except HeadError as error:
            code = "body_too_large" if error.status == 413 else "bad_request"
            self.send_error(error.status, str(error), code)
            return
        self._begin(head, buffer[end + 4 :])

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        self._buffer, self._body, self._body_bytes = b"", head.body, 0
        if (
            head.body is not None
            and head.http11
            and head.values.get(b"expect", b"").lower() == b"100-continue"
        ):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange = self._exchange = Exchange(self._context, self, head)
        self._served = True
        exchange.begin()
        if head.body is None:
            self._buffer = rest
            exchange.request_end()
        elif rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        if body is None or exchange is None:
            return
        try:
            pieces, used = body.feed(data)
        except FramingError as error:
            self._break(400, str(error), "bad_request")
            return
        self._body_bytes += sum(map(len, pieces))
        if self._body_bytes > self._context.config.max_body_bytes:
            self._break(
                413, f"a body of more than {self._context.config.max_body_bytes} bytes", "body_too_large"
            )
            return
        raw = data if used == len(data) else data[:used]
        exchange.request_body(raw if isinstance(body, Chunked) else b"".join(pieces))
        if body.done:
            self._body = None
            self._buffer = data[used:]
            exchange.request_end()

    def _break(self, status: int, message: str, code: str) -> None:
        """Cancel the exchange: the request body is malformed, too large or late."""
        exchange, self._exchange = self._exchange, None
        began = exchange is not None and exchange.began
        if exchange is not None:
            exchange.cancel(code)
        if began:
            self.abort()
        else:
            self.send_error(status, message, code)

    def send_error(
        self,
        status: int,
        message: str,
        code: str,
        request_id: str = "",
        *,
        close: bool = True,
        retry_seconds: int | None = None,
    ) -> None:
        """Send an error that the proxy itself reports, in the shape of OpenAI's API."""
        retry = b"" if retry_seconds is None else b"Retry-After: %d\r\n" % retry_seconds
        self._send_json(status, error_body(message, code), request_id, retry, close=close)

    def send_response(self, body: bytes, request_id: str, *, close: bool) -> None:
        """Send a JSON response of the proxy itself."""
        self._send_json(200, body, request_id, close=close)

    def _send_json(
        self, status: int, body: bytes, request_id: str, extra: bytes = b"", *, close: bool
    ) -> None:
        lines = [b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n" % (status, _REASONS[status]), extra]
        if request_id:
            lines.append(b"x-request-id: %b\r\n" % request_id.encode("latin-1"))
        if close:
            lines.append(b"Connection: close\r\n")
        self.write(b"".join((*lines, b"Content-Length: %d\r\n\r\n" % len(body), body)))
        if close:
            self._linger()

    def finish_response(self, *, keep: bool) -> None:
        """End the exchange, whose response was written: start the next request, or close."""
        self._exchange = None
        if self._body is not None:
            self._linger()
            return
        if not keep or self._context.draining:
            self.close()
            return
        self.pause(paused=False)
        self._since_ns = now_ns()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._exchange is None and self._transport is not None and not self._closing:
            self._next()

    def write(self, data: bytes) -> None:
        """Send bytes to the client; ignored once the connection is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def fast_writer(self) -> Callable[[bytes], None]:
        """Return a function that writes without checks, valid while the exchange runs."""
        return self._transport.write if self._transport is not None else self.write

    def pause(self, *, paused: bool) -> None:
        """Stop reading from the client, or resume."""
        transport = self._transport
        if self._paused == paused or transport is None or transport.is_closing():
            return
        self._paused = paused
        if paused:
            transport.pause_reading()
        else:
            self._since_ns = now_ns()
            transport.resume_reading()

    def take_buffered(self) -> bytes:
        """Return the bytes received after the request, and remove them from the buffer."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _linger(self) -> None:
        """Close the sending side once all is written, and discard what is still received.

        Closing a socket with unread bytes sends a reset, which may destroy the response (RFC 9112, 9.6).
        """
        transport = self._transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            self.close()
            return
        self._since_ns, self._closing = now_ns(), True
        transport.write_eof()
        self.pause(paused=False)

    def close(self) -> None:
        """Close the connection once all is written."""
        self._since_ns, self._closing = now_ns(), True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection immediately; unsent bytes are lost."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Pause reading from the backend: the client reads too slowly."""
        self._write_paused_ns = now_ns()
        if self._exchange is not None:
            self._exchange.pause(paused=True)

    def resume_writing(self) -> None:
        """Resume reading from the backend: the client has caught up."""
        self._write_paused_ns = None
        if self._exchange is not None:
            self._exchange.pause(paused=False)
        elif self._buffer:
            self._go_on()

    def sweep(self, now: int) -> None:
        """Enforce the timeout of what this connection waits for; ``now`` is monotonic nanoseconds."""
        config = self._context.config
        if self._write_paused_ns is not None:
            if now - self._write_paused_ns > ns_from_seconds(config.write_timeout_seconds):
                self.abort()
            return
        waited = now - self._since_ns
        if self._closing:
            self._sweep_closing(waited)
        elif self._body is not None:
            if self._paused and self._exchange is not None:
                self._exchange.sweep(now)  # it is the backend that does not read
            elif not self._paused and waited > ns_from_seconds(config.body_timeout_seconds):
                self._break(408, "the request's body did not come", "body_timeout")
        elif self._exchange is not None:
            self._exchange.sweep(now)
        elif self._buffer or not self._served:
            if waited > ns_from_seconds(config.head_timeout_seconds):
                self.send_error(408, "the request's head did not come", "head_timeout")
        elif waited > ns_from_seconds(config.client_idle_timeout_seconds):
            self.close()

    def _sweep_closing(self, waited: int) -> None:
        """Abort a closing connection whose client neither reads nor closes in time."""
        config, transport = self._context.config, self._transport
        unread = transport is not None and transport.get_write_buffer_size() > 0
        limit = config.write_timeout_seconds if unread else config.linger_timeout_seconds
        if waited > ns_from_seconds(limit):
            self.abort()
