"""A server of known latency, with which the error of a client is measured.

Tokens are sent at absolute times (arrival + TTFT + k * ITL), written directly to the socket. ``GET /truth``
returns when each request arrived and each token was written, and the lateness of the server, so that the
errors of client and server can be separated. ``slots`` limits the requests in service; the others wait first
come, first served. ``/energy`` has the accounts of a device of known power, on this host's clock.
"""

import argparse
import asyncio
import contextlib
import heapq
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

import httptools
import msgspec

from loadgen.client.transport import PlainTransport, Transport, stamp_reads
from loadgen.drive.deadline_timer import DeadlineTimer
from loadgen.selfcheck.known_power import KnownDevice
from proxy.schema import REQUEST_ID_HEADER
from proxy.units import ns_from_seconds

_ID = REQUEST_ID_HEADER.lower().encode()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODEL = "truth"
_BACKLOG = 4096
_NO_MODEL = b'{"error":{"message":"The model does not exist.","type":"NotFoundError","code":404}}'
_MODELS = b'{"object":"list","data":[{"id":"truth","object":"model"}]}'


@dataclass(frozen=True, slots=True)
class Truth:
    """Latency of every request; with ``ttft_s`` 0 all tokens are sent at once.

    ``role_first``: the chunk with the role, which has no token, is sent at once; otherwise with the first
    token, as by real engines. Some clients mistake it for the first token.
    """

    ttft_s: float = 0.05
    itl_s: float = 0.01
    tokens: int = 8
    slots: int | None = None
    role_first: bool = True


class Served(msgspec.Struct, array_like=True):
    """When a request arrived at the server's socket and when its tokens were written; monotonic."""

    arrived_ns: int
    written_ns: list[int] = []


class ServerLog(msgspec.Struct, frozen=True):
    """``GET /truth``: requests by id, lateness of each token, CPU seconds of the server."""

    served: dict[str, Served]
    late_ns: list[int]
    cpu_seconds: float


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(delta: str, finish: str) -> bytes:
    head = '{"id":"t","object":"chat.completion.chunk","model":"truth","choices":[{"index":0,"delta":'
    return _chunk(f'data: {head}{delta},"finish_reason":{finish}}}]}}\n\n'.encode())


_ROLE = _event('{"role":"assistant","content":""}', "null")
_TOKEN = _event('{"content":" word"}', "null")
_LAST = _event("{}", '"stop"')


@dataclass(slots=True)
class Engine:
    """The schedule of all responses; one timer expires for the next token due."""

    truth: Truth
    device: KnownDevice = field(default_factory=KnownDevice)
    served: dict[str, Served] = field(default_factory=dict)
    late_ns: list[int] = field(default_factory=list)
    _due: list[tuple[int, int, "_Response"]] = field(default_factory=list)
    _queue: deque["_Response"] = field(default_factory=deque)
    _serial: int = 0
    _busy: int = 0
    _itl_ns: int = field(init=False)
    _timer: DeadlineTimer = field(init=False)

    def start(self) -> None:
        """Create the timer; needs a running event loop."""
        self._itl_ns = ns_from_seconds(self.truth.itl_s)
        self._timer = DeadlineTimer(asyncio.get_running_loop(), self._send_due)

    def close(self) -> None:
        """Cancel the timer."""
        self._timer.close()

    def accept(self, answer: "_Response", name: str) -> None:
        """Serve now, or queue for a slot; ``name`` is the request's id."""
        if not self.truth.ttft_s:
            answer.send_all()
            return
        self.served[name] = answer.served
        if self.truth.slots is not None and self._busy >= self.truth.slots:
            self._queue.append(answer)
            return
        self._begin(answer, answer.served.arrived_ns)

    def log(self) -> ServerLog:
        """Return the records so far."""
        return ServerLog(self.served, self.late_ns, time.process_time())

    def _begin(self, answer: "_Response", now: int) -> None:
        self._busy += 1
        if self._busy == 1:
            self.device.changed(time.monotonic_ns(), busy=True)
        self._serial += 1
        due = now + ns_from_seconds(self.truth.ttft_s)
        heapq.heappush(self._due, (due, self._serial, answer))
        if self._due[0][2] is answer:
            self._timer.set(due)

    def _send_due(self) -> None:
        # The cost of a token is one replacement in the heap and one write.
        due, late = self._due, self.late_ns
        while due and due[0][0] <= (now := time.monotonic_ns()):
            at, _, answer = due[0]
            late.append(now - at)
            answer.served.written_ns.append(now)
            if answer.step():
                self._serial += 1
                heapq.heapreplace(due, (at + self._itl_ns, self._serial, answer))
                continue
            heapq.heappop(due)
            self._ended(at, now)
        if due:
            self._timer.set(due[0][0])

    def _ended(self, at: int, now: int) -> None:
        self._busy -= 1
        if self._queue:
            answer = self._queue.popleft()
            self._begin(answer, max(at, answer.served.arrived_ns))
        self.device.changed(now, busy=self._busy > 0)


class _Response:
    """One response in progress."""

    __slots__ = ("_early", "_left", "_tokens", "_transport", "served", "usage")

    def __init__(self, wire: Transport, truth: Truth, arrived_ns: int, *, usage: bool) -> None:
        self._transport = wire
        self._tokens = self._left = truth.tokens
        self._early = b"" if truth.role_first else _ROLE
        self.served = Served(arrived_ns)
        self.usage = usage
        wire.write(_HEAD + _ROLE if truth.role_first else _HEAD)

    def send_all(self) -> None:
        """Write all tokens at once."""
        self._transport.write(self._early + _TOKEN * (self._tokens - 1) + self._end())

    def step(self) -> bool:
        """Write the token that is due; False after the last one, or when the client has gone."""
        if not self._transport.open:
            return False
        self._left -= 1
        early, self._early = self._early, b""
        if self._left:
            self._transport.write(early + _TOKEN)
            return True
        self._transport.write(early + self._end())
        return False

    def _end(self) -> bytes:
        count = f'{{"prompt_tokens":8,"completion_tokens":{self._tokens}}}'
        usage = _chunk(f'data: {{"choices":[],"usage":{count}}}\n\n'.encode())
        return _TOKEN + _LAST + (usage if self.usage else b"") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Asked(msgspec.Struct):
    model: str | None = None
    max_tokens: int | None = None
    stream_options: dict[str, bool] | None = None


class _Connection:
    """The server's side of one connection: the owner of its transport."""

    def __init__(self, engine: Engine, sock: socket.socket, ended: Callable[["_Connection"], None]) -> None:
        self._engine = engine
        self._ended = ended
        self._parser = httptools.HttpRequestParser(self)
        self._now = 0
        self._url = b""
        self._name = ""
        self._body = bytearray()
        self._transport = PlainTransport(asyncio.get_running_loop(), sock, self)

    def received(self, data: bytes, t_ns: int) -> None:
        self._now = t_ns
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._ended(self)

    def lost(self, error: OSError | None) -> None:
        del error  # its pending tokens find the transport closed
        self._ended(self)

    def close(self) -> None:
        self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url = url
        self._name = ""
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _ID:
            self._name = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            asked = msgspec.json.decode(bytes(self._body), type=_Asked)
            if asked.model not in {None, MODEL}:
                self._respond(b"404 Not Found", _NO_MODEL)
                return
            # max_tokens is ignored: all requests have the same number of tokens.
            usage = bool((asked.stream_options or {}).get("include_usage"))
            answer = _Response(self._transport, self._engine.truth, self._now, usage=usage)
            self._engine.accept(answer, self._name)
            return
        found = self._control()
        self._respond(*((b"404 Not Found", b"{}") if found is None else (b"200 OK", found)))

    def _respond(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    def _control(self) -> bytes | None:
        """Return the response body of the other paths; None for an unknown path."""
        parts = urlsplit(self._url.decode("latin-1"))
        if parts.path.endswith("/models"):
            return _MODELS
        if parts.path == "/truth":
            return msgspec.json.encode(self._engine.log())
        if parts.path == "/energy/clock":
            return msgspec.json.encode({"now_ns": time.monotonic_ns()})
        if parts.path == "/energy/requests":
            return b"[]"
        if parts.path == "/energy/window":
            asked = parse_qs(parts.query)
            start, end = (int(asked[name][0]) for name in ("start_ns", "end_ns"))
            return msgspec.json.encode({"devices": [self._engine.device.account(start, end)]})
        return None


@dataclass(slots=True)
class TruthServer:
    """An async context manager; ``url`` is where it listens (a free port of 127.0.0.1 by default)."""

    truth: Truth
    port: int = 0
    url: str = ""
    _engine: Engine = field(init=False)
    _socket: socket.socket = field(init=False)
    _all: set[_Connection] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        """Start listening."""
        self._engine = Engine(self.truth)
        self._engine.start()
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        stamp_reads(self._socket)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop listening and close all connections."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for connection in self._all:
            connection.close()
        self._engine.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._all.add(_Connection(self._engine, self._socket.accept()[0], self._all.discard))


def main(argv: list[str] | None = None) -> int:
    """``python -m loadgen.selfcheck.truth_server``: print the URL and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="loadgen.selfcheck.truth_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft", type=float, default=0.05, help="seconds")
    parser.add_argument("--itl", type=float, default=0.01, help="seconds")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--role-late", action="store_true", help="send the role with the first token")
    args = parser.parse_args(argv)
    truth = Truth(args.ttft, args.itl, args.tokens, args.slots, not args.role_late)

    async def serve() -> None:
        async with TruthServer(truth, args.port) as server:
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
