# Compiled by mypyc: see setup.py.
"""An HTTP/1.1 client for measurement: llhttp over transports that stamp their reads.

A connection carries one request at a time. All chunks of one read share its stamp. Nothing is retried: a
failure is a result.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Protocol

import httptools

from loadgen.client.chunk_template import ChunkTemplate
from loadgen.client.transport import Transport, connect
from proxy.api.chunks import LINES
from proxy.inputs import parse_url

_TRIES = 8  # attempts to learn a template per response: chunks that differ in more than text never match


class ResponseHandler(Protocol):
    """Receives the events of one response; the last one is either ``ended`` or ``failed``."""

    def started(self, t_ns: int) -> None:
        """Receive the time at which the request is written to the socket."""

    def status(self, code: int) -> None:
        """Receive the status code."""

    def body(self, data: bytes, t_ns: int) -> None:
        """Receive bytes of the body, which arrived at ``t_ns``."""

    def template(self, data: bytes) -> ChunkTemplate | None:
        """Return a template for reads like ``data``, which was one complete chunk; None if it has none."""

    def ended(self, t_ns: int) -> None:
        """Receive the end of a complete response."""

    def failed(self, reason: str, t_ns: int) -> None:
        """Receive the reason why the response is not complete."""


class Target:
    """Address and Host header of a server, from its URL; raises ``ValueError`` if that is invalid."""

    __slots__ = ("authority", "base", "host", "port", "tls")

    def __init__(self, url: str) -> None:
        origin = parse_url(url)
        self.tls = ssl.create_default_context() if origin.tls else None
        self.host = origin.host
        self.port = origin.port
        self.base = origin.prefix  # path prefix of all requests
        self.authority = origin.authority  # value of the Host header


class Connection:
    """One keep-alive connection, the owner of its transport.

    Call ``open`` first, then ``send`` for one request at a time.
    """

    __slots__ = (
        "_answering",
        "_done",
        "_framed",
        "_handler",
        "_kept",
        "_now",
        "_parser",
        "_pieces",
        "_released",
        "_template",
        "_transport",
        "_tries",
    )

    def __init__(self, released: Callable[["Connection"], None]) -> None:
        """``released(self)`` is called when the connection is idle again or closed."""
        self._released = released
        self._handler: ResponseHandler | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._framed = self._answering = self._done = self._kept = False
        self._now = 0
        self._pieces: list[bytes] = []
        self._template: ChunkTemplate | None = None
        self._tries = 0
        self._transport: Transport | None = None

    async def open(self, target: Target) -> None:
        """Connect; raises ``OSError``."""
        self._transport = await connect(target.host, target.port, target.tls, self)

    def send(self, handler: ResponseHandler, request: bytes) -> None:
        """Write a complete request and report its response to ``handler``."""
        self._handler = handler
        self._framed = self._answering = self._done = self._kept = False
        self._tries = _TRIES
        if self._transport is None or not self._transport.open:
            self._fail("the connection is closed")
            return
        handler.started(time.monotonic_ns())
        self._transport.write(request)

    @property
    def usable(self) -> bool:
        """Whether the connection is open."""
        return self._transport is not None and self._transport.open

    def carries(self, handler: ResponseHandler) -> bool:
        """Whether the request of ``handler`` is in flight on this connection."""
        return self._handler is handler

    @property
    def last_received_ns(self) -> int:
        """When the last bytes arrived, monotonic nanoseconds; 0 before the first."""
        return self._now

    def abandon(self, reason: str) -> None:
        """Close the connection and fail its request with ``reason``; most servers cancel the request then."""
        self._drop(reason)

    def close(self) -> None:
        """Close the connection; its request fails."""
        if self._transport is not None:
            self._transport.close()
        self._fail("the connection is closed")

    # Events of the transport (transport.Owner)

    def received(self, data: bytes, t_ns: int) -> None:
        """Parse a read, unless it matches the template of the chunk before."""
        self._now = t_ns
        template = self._template
        if template is not None:
            if template.match(data, t_ns):
                return
            self._template = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._drop(f"malformed HTTP response: {type(error).__name__}")
            return
        pieces, handler = self._pieces, self._handler
        if pieces:  # all of one read, and so with one stamp
            if handler is not None:
                handler.body(pieces[0] if len(pieces) == 1 else b"".join(pieces), t_ns)
                if self._tries and len(pieces) == 1:
                    self._learn_template(handler, data, len(pieces[0]))
            pieces.clear()
        if self._done:
            self._complete()

    def _learn_template(self, handler: ResponseHandler, data: bytes, content: int) -> None:
        """Request a template after a read of exactly one complete chunk.

        Then the parser is between two chunks, so reads that match the template need not be parsed. The
        content of such a read is one piece, shorter than the read by the size line and the final CRLF.
        """
        if len(data) - content == len(LINES.get(len(data), b"")) + 2:
            self._tries -= 1
            self._template = handler.template(data)

    def lost(self, error: OSError | None) -> None:
        """Complete a response that is delimited by the end of the connection; fail any other one."""
        self._now = time.monotonic_ns()
        if self._handler is not None and error is None and self._answering and not self._framed:
            self._complete()
            return
        self._drop(
            "the connection broke"
            if error
            else "the server closed the connection before the response was complete"
        )

    # Events of the parser (httptools)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Record whether the headers delimit the body."""
        del value
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        """Report the status code."""
        self._answering = True
        if self._handler is not None:
            self._handler.status(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """Collect the pieces of one read."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Mark the response as complete; nothing may follow it, since there is one request at a time."""
        self._done = True
        self._kept = bool(self._parser.should_keep_alive())  # llhttp reports False after this callback

    def _complete(self) -> None:
        handler, self._handler = self._handler, None
        self._done = False
        self._template = None
        if self._transport is not None and not self._kept:
            self._transport.close()
        # Release first: the handler may send the next request on this connection.
        self._released(self)
        if handler is not None:
            handler.ended(self._now)

    def _drop(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.close()
        self._released(self)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        handler, self._handler = self._handler, None
        self._template = None
        if handler is not None:
            handler.failed(reason, time.monotonic_ns())


class Client:
    """A pool of connections to one target; the most recently used idle one is used next.

    Needs a running event loop. Call ``close`` at the end.
    """

    def __init__(self, target: Target, *, max_connections: int | None = None) -> None:
        self.target = target
        self.max_connections = max_connections
        self.opened = 0
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: dict[asyncio.Task[None], ResponseHandler] = {}

    def send(self, handler: ResponseHandler, request: bytes) -> None:
        """Send at once on an idle connection, else on a new one as soon as it is established."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(handler, request)
                return
            self._all.discard(connection)
        task = self._loop.create_task(self._send_on_new(handler, request))
        self._opening[task] = handler
        task.add_done_callback(self._opened)

    def abandon(self, handler: ResponseHandler, reason: str) -> None:
        """Abandon a request: close its connection and fail ``handler`` with ``reason``."""
        for connection in self._all:
            if connection.carries(handler):
                connection.abandon(reason)
                return
        for task, waiting in self._opening.items():
            if waiting is handler:
                task.cancel()
                break
        handler.failed(reason, time.monotonic_ns())

    @property
    def last_received_ns(self) -> int:
        """When the last bytes arrived on any connection, monotonic nanoseconds; 0 if none did."""
        return max((connection.last_received_ns for connection in self._all), default=0)

    async def warm(self, count: int) -> None:
        """Open connections in advance, so that the first latencies do not include handshakes.

        If some cannot be opened, the requests that need them fail and are counted. Raises ``OSError`` if none
        can be opened.
        """
        opening = (self._open() for _ in range(count - len(self._idle)))
        opened = await asyncio.gather(*opening, return_exceptions=True)
        self._idle.extend(one for one in opened if isinstance(one, Connection))
        for one in opened:
            if isinstance(one, BaseException) and not (self._idle and isinstance(one, OSError)):
                raise one

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        headers: bytes = b"",
        body: bytes = b"",
        limit_s: float = 30,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Send a control request and return status and body of its response.

        Raises ``OSError``, or ``TimeoutError`` after ``limit_s`` seconds.
        """
        handler = _Fetch(self._loop)
        self.send(handler, request_bytes(self.target, method, path, headers, body, content_type))
        return await asyncio.wait_for(handler.response, limit_s)

    async def close(self) -> None:
        """Close all connections; requests in flight fail."""
        for task in list(self._opening):
            task.cancel()
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _open(self) -> Connection:
        target = self.target
        # Connections that are being established count, too.
        if self.max_connections is not None and len(self._all) >= self.max_connections:
            raise OSError(f"all {self.max_connections} connections are in use (--max-connections)")
        connection = Connection(self._released)
        self._all.add(connection)
        try:
            await connection.open(target)
        except BaseException:  # also when cancelled
            self._all.discard(connection)
            raise
        self.opened += 1
        return connection

    async def _send_on_new(self, handler: ResponseHandler, request: bytes) -> None:
        try:
            connection = await self._open()
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            handler.failed(f"cannot connect: {why}", time.monotonic_ns())
            return
        except UnicodeError as error:
            handler.failed(f"cannot connect: invalid host name: {error}", time.monotonic_ns())
            return
        connection.send(handler, request)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)

    def _released(self, connection: Connection) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self._all.discard(connection)


class _Fetch:
    """Collects one response into a future."""

    __slots__ = ("_body", "_code", "response")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.response: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self._body = bytearray()
        self._code = 0

    def started(self, t_ns: int) -> None:
        """Ignore the time of sending."""

    def status(self, code: int) -> None:
        """Record the status code."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Collect the body."""
        del t_ns
        self._body += data

    def template(self, data: bytes) -> None:
        """Return None: the complete body is needed."""

    def ended(self, t_ns: int) -> None:
        """Set the result."""
        del t_ns
        if not self.response.done():
            self.response.set_result((self._code, bytes(self._body)))

    def failed(self, reason: str, t_ns: int) -> None:
        """Set the exception."""
        del t_ns
        if not self.response.done():
            self.response.set_exception(ConnectionError(reason))


class RequestForm:
    """Template of requests that differ only in their body and in the number at the end of their headers."""

    __slots__ = ("_after", "_before")

    def __init__(self, target: Target, path: str, headers: bytes, content_type: str, numbered: bytes) -> None:
        """``headers`` are complete lines; ``numbered`` is the last line without its number."""
        whole = request_bytes(target, "POST", path, headers, b"-", content_type)
        before, _, after = whole.removesuffix(b"\r\n-").partition(b"Content-Length: 1\r\n")
        self._before = before + b"Content-Length: "
        self._after = b"\r\n" + after + numbered

    def request(self, number: int, body: bytes) -> bytes:
        """Return a complete request."""
        return b"%b%d%b%d\r\n\r\n%b" % (self._before, len(body), self._after, number, body)


def request_bytes(
    target: Target,
    method: str,
    path: str,
    headers: bytes,
    body: bytes,
    content_type: str = "application/json",
) -> bytes:
    """Return a complete request; ``headers`` are complete lines, each with CRLF."""
    kind = f"Content-Type: {content_type}\r\n".encode() if body else b""
    return (
        f"{method} {target.base}{path} HTTP/1.1\r\nHost: {target.authority}\r\n"
        f"Content-Length: {len(body)}\r\n"
    ).encode() + b"".join((kind, headers, b"\r\n", body))
