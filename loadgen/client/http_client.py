# Compiled by mypyc: see setup.py.
"""An HTTP/1.1 client for measuring: llhttp over wires that stamp what they read.

A connection carries one request at a time, and all that one read carried shares its stamp. Nothing here
retries: a failure is a result.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Protocol

import httptools

from loadgen.client.chunk_template import Lane
from loadgen.client.transport import Wire, dial
from proxy.api.chunks import LINES
from proxy.inputs import parse_url

_TRIES = 8  # of finding a lane in one answer: events that differ in more than their text are parsed


class Exchange(Protocol):
    """The caller's side of one request; exactly one of ``ended`` and ``failed`` comes last."""

    def started(self, t_ns: int) -> None:
        """The bytes go to the socket now."""

    def status(self, code: int) -> None:
        """The status line came."""

    def body(self, data: bytes, t_ns: int) -> None:
        """Bytes of the body, read at ``t_ns``."""

    def lane(self, data: bytes) -> Lane | None:
        """A short way for reads like ``data``, which was one whole chunk; None: there is none."""

    def ended(self, t_ns: int) -> None:
        """The answer is complete."""

    def failed(self, reason: str, t_ns: int) -> None:
        """There is no whole answer, and why."""


class Target:
    """Where to connect, from a URL; raises ``ValueError`` that says what would be right."""

    __slots__ = ("authority", "base", "host", "port", "tls")

    def __init__(self, url: str) -> None:
        origin = parse_url(url)
        self.tls = ssl.create_default_context() if origin.tls else None
        self.host = origin.host
        self.port = origin.port
        self.base = origin.prefix  # of every path
        self.authority = origin.authority  # the Host header


class Connection:
    """One keep-alive connection: the owner of its wire."""

    __slots__ = (
        "_answering",
        "_done",
        "_exchange",
        "_framed",
        "_kept",
        "_lane",
        "_now",
        "_parser",
        "_pieces",
        "_released",
        "_tries",
        "_wire",
    )

    def __init__(self, released: Callable[["Connection"], None]) -> None:
        """``released(self)`` is called when the connection may carry the next request, or none any more."""
        self._released = released
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._framed = self._answering = self._done = self._kept = False
        self._now = 0
        self._pieces: list[bytes] = []
        self._lane: Lane | None = None
        self._tries = 0
        self._wire: Wire | None = None

    async def open(self, target: Target) -> None:
        """Connect; raises ``OSError``."""
        self._wire = await dial(target.host, target.port, target.tls, self)

    def send(self, exchange: Exchange, request: bytes) -> None:
        """Write a whole request, and report its answer to ``exchange``."""
        self._exchange = exchange
        self._framed = self._answering = self._done = self._kept = False
        self._tries = _TRIES
        if self._wire is None or not self._wire.open:
            self._fail("the connection is closed")
            return
        exchange.started(time.monotonic_ns())
        self._wire.write(request)

    @property
    def usable(self) -> bool:
        """Open, and not about to close."""
        return self._wire is not None and self._wire.open

    def carries(self, exchange: Exchange) -> bool:
        """Whether the request of ``exchange`` is under way here."""
        return self._exchange is exchange

    @property
    def heard_ns(self) -> int:
        """When the last bytes came (monotonic); 0 before the first."""
        return self._now

    def abandon(self, reason: str) -> None:
        """Close the connection, which cancels the request at most servers, and report ``reason``."""
        self._drop(reason)

    def close(self) -> None:
        """Drop the connection; what it carries is told of its failure."""
        if self._wire is not None:
            self._wire.close()
        self._fail("the connection is closed")

    # wire.Owner

    def received(self, data: bytes, t_ns: int) -> None:
        """Parse; or not even that, for whole chunks like the one before."""
        self._now = t_ns
        lane = self._lane
        if lane is not None:
            if lane.take(data, t_ns):
                return
            self._lane = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._drop(f"the answer is not HTTP: {type(error).__name__}")
            return
        pieces, exchange = self._pieces, self._exchange
        if pieces:  # of one read and so of one stamp: told at once
            if exchange is not None:
                exchange.body(pieces[0] if len(pieces) == 1 else b"".join(pieces), t_ns)
                if self._tries and len(pieces) == 1:
                    self._find_lane(exchange, data, len(pieces[0]))
            pieces.clear()
        if self._done:
            self._complete()

    def _find_lane(self, exchange: Exchange, data: bytes, content: int) -> None:
        """After a read that was one whole chunk the parser is between chunks, also if some are left out.

        Its content was one piece, shorter than the read by the size line and the last CRLF.
        """
        if len(data) - content == len(LINES.get(len(data), b"")) + 2:
            self._tries -= 1
            self._lane = exchange.lane(data)

    def lost(self, error: OSError | None) -> None:
        """An answer without length ends so; any other one is broken."""
        self._now = time.monotonic_ns()
        if self._exchange is not None and error is None and self._answering and not self._framed:
            self._complete()
            return
        self._drop("the connection broke" if error else "the server closed before the answer's end")

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the body's end can be told from the headers."""
        del value
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        """Tell the status."""
        self._answering = True
        if self._exchange is not None:
            self._exchange.status(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        """Gather what one read brought."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The rest of the read may hold nothing more: one request at a time."""
        self._done = True
        self._kept = bool(self._parser.should_keep_alive())  # afterwards llhttp says no to all

    def _complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._done = False
        self._lane = None
        if self._wire is not None and not self._kept:
            self._wire.close()
        # Release first: what ends here may send the next request on this very connection.
        self._released(self)
        if exchange is not None:
            exchange.ended(self._now)

    def _drop(self, reason: str) -> None:
        if self._wire is not None:
            self._wire.close()
        self._released(self)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._lane = None
        if exchange is not None:
            exchange.failed(reason, time.monotonic_ns())


class Client:
    """Connections to one target: the most recently used idle one is used next."""

    def __init__(self, target: Target, *, max_connections: int | None = None) -> None:
        self.target = target
        self.max_connections = max_connections
        self.opened = 0
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: dict[asyncio.Task[None], Exchange] = {}

    def send(self, exchange: Exchange, request: bytes) -> None:
        """Send at once on an idle connection, else on a new one as soon as it stands."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(exchange, request)
                return
            self._all.discard(connection)
        task = self._loop.create_task(self._send_on_new(exchange, request))
        self._opening[task] = exchange
        task.add_done_callback(self._opened)

    def abandon(self, exchange: Exchange, reason: str) -> None:
        """Give up on a request: its connection is closed, and ``exchange`` fails with ``reason``."""
        for connection in self._all:
            if connection.carries(exchange):
                connection.abandon(reason)
                return
        for task, waiting in self._opening.items():
            if waiting is exchange:
                task.cancel()
                break
        exchange.failed(reason, time.monotonic_ns())

    @property
    def heard_ns(self) -> int:
        """When the last bytes came on any connection (monotonic); 0 if none ever did."""
        return max((connection.heard_ns for connection in self._all), default=0)

    async def warm(self, count: int) -> None:
        """Open connections beforehand, so that handshakes are not in the first latencies.

        Where some cannot be opened, the requests that would need them fail and are counted; raises
        ``OSError`` where none can.
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
        """One whole answer, for control calls: status and body; raises ``OSError`` or ``TimeoutError``."""
        exchange = _Fetch(self._loop)
        self.send(exchange, request_bytes(self.target, method, path, headers, body, content_type))
        return await asyncio.wait_for(exchange.answer, limit_s)

    async def close(self) -> None:
        """Drop all connections."""
        for task in list(self._opening):
            task.cancel()
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _open(self) -> Connection:
        target = self.target
        # The count is the limit: connections that are being made count as well.
        if self.max_connections is not None and len(self._all) >= self.max_connections:
            raise OSError(f"all {self.max_connections} connections are in use (--max-connections)")
        connection = Connection(self._released)
        self._all.add(connection)
        try:
            await connection.open(target)
        except BaseException:  # also when it is cancelled: the count is the limit
            self._all.discard(connection)
            raise
        self.opened += 1
        return connection

    async def _send_on_new(self, exchange: Exchange, request: bytes) -> None:
        try:
            connection = await self._open()
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            exchange.failed(f"cannot connect: {why}", time.monotonic_ns())
            return
        except UnicodeError as error:
            exchange.failed(f"cannot connect: no host has such a name: {error}", time.monotonic_ns())
            return
        connection.send(exchange, request)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)

    def _released(self, connection: Connection) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self._all.discard(connection)


class _Fetch:
    """Gathers one answer into a future."""

    __slots__ = ("_body", "_code", "answer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self._body = bytearray()
        self._code = 0

    def started(self, t_ns: int) -> None:
        """Nothing to note."""

    def status(self, code: int) -> None:
        """Keep the status."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Gather."""
        del t_ns
        self._body += data

    def lane(self, data: bytes) -> None:
        """All of the body is wanted."""

    def ended(self, t_ns: int) -> None:
        """Hand over the answer."""
        del t_ns
        if not self.answer.done():
            self.answer.set_result((self._code, bytes(self._body)))

    def failed(self, reason: str, t_ns: int) -> None:
        """Hand over the failure."""
        del t_ns
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(reason))


class RequestForm:
    """Requests that differ in their body and in the number that ends their head; all else is made once."""

    __slots__ = ("_after", "_before")

    def __init__(self, target: Target, path: str, headers: bytes, content_type: str, numbered: bytes) -> None:
        """``headers`` are complete lines; ``numbered`` is the beginning of one that ends with a number."""
        whole = request_bytes(target, "POST", path, headers, b"-", content_type)
        before, _, after = whole.removesuffix(b"\r\n-").partition(b"Content-Length: 1\r\n")
        self._before = before + b"Content-Length: "
        self._after = b"\r\n" + after + numbered

    def request(self, number: int, body: bytes) -> bytes:
        """A whole request."""
        return b"%b%d%b%d\r\n\r\n%b" % (self._before, len(body), self._after, number, body)


def request_bytes(
    target: Target,
    method: str,
    path: str,
    headers: bytes,
    body: bytes,
    content_type: str = "application/json",
) -> bytes:
    """A whole request; ``headers`` are complete lines, each ending in CRLF."""
    kind = f"Content-Type: {content_type}\r\n".encode() if body else b""
    return (
        f"{method} {target.base}{path} HTTP/1.1\r\nHost: {target.authority}\r\n"
        f"Content-Length: {len(body)}\r\n"
    ).encode() + b"".join((kind, headers, b"\r\n", body))
