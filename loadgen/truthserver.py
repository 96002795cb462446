"""A server of known latency: what a client measures beyond it is the client's own error.

Tokens leave at absolute times (accepted + TTFT + k * ITL), written to the socket when due, past the
loop's buffers. ``GET /truth`` says when each first token truly left and how late the server itself was,
so that the two sides can be told apart. ``slots`` bounds the requests in service, the rest queue (first
come, first served); a device of known power stands behind ``/energy``, on this host's clock.
"""

import argparse
import asyncio
import heapq
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

import httptools
import msgspec

from loadgen.alarm import Alarm
from loadgen.truthpower import KnownDevice
from proxy.schema import REQUEST_ID_HEADER
from proxy.units import ns_from_seconds

_ID = REQUEST_ID_HEADER.lower().encode()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODEL = "truth"
_NO_MODEL = b'{"error":{"message":"The model does not exist.","type":"NotFoundError","code":404}}'
_MODELS = b'{"object":"list","data":[{"id":"truth","object":"model"}]}'


@dataclass(frozen=True, slots=True)
class Truth:
    """What the server does to every request."""

    ttft_s: float = 0.05
    itl_s: float = 0.01
    tokens: int = 8
    slots: int | None = None


class Told(msgspec.Struct, frozen=True):
    """``GET /truth``: monotonic stamp of each first token's write by request id, tokens' lateness, CPU."""

    first_ns: dict[str, int]
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
    """The schedule of all answers; one alarm rings for the next token due."""

    truth: Truth
    device: KnownDevice = field(default_factory=KnownDevice)
    first_ns: dict[str, int] = field(default_factory=dict)
    late_ns: list[int] = field(default_factory=list)
    _due: list[tuple[int, int, "_Answer"]] = field(default_factory=list)
    _queue: deque["_Answer"] = field(default_factory=deque)
    _serial: int = 0
    _busy: int = 0
    _itl_ns: int = field(init=False)
    _alarm: Alarm = field(init=False)

    def start(self) -> None:
        """Needs a running loop."""
        self._itl_ns = ns_from_seconds(self.truth.itl_s)
        self._alarm = Alarm(asyncio.get_running_loop(), self._ring)

    def close(self) -> None:
        """Stop ringing."""
        self._alarm.close()

    def accept(self, answer: "_Answer") -> None:
        """Serve now, or queue for a slot."""
        if self.truth.slots is not None and self._busy >= self.truth.slots:
            self._queue.append(answer)
            return
        self._begin(answer, time.monotonic_ns())

    def told(self) -> Told:
        """What happened so far."""
        return Told(self.first_ns, self.late_ns, time.process_time())

    def _begin(self, answer: "_Answer", now: int) -> None:
        self._busy += 1
        if self._busy == 1:
            self.device.changed(time.monotonic_ns(), busy=True)
        self._serial += 1
        due = now + ns_from_seconds(self.truth.ttft_s)
        heapq.heappush(self._due, (due, self._serial, answer))
        if self._due[0][2] is answer:
            self._alarm.set(due)

    def _ring(self) -> None:
        # The whole cost of the server: one replacement in the heap and one write for a token.
        due, late = self._due, self.late_ns
        while due and due[0][0] <= (now := time.monotonic_ns()):
            at, _, answer = due[0]
            late.append(now - at)
            if answer.fresh:
                answer.fresh = False
                self.first_ns[answer.id] = now
            if answer.step():
                self._serial += 1
                heapq.heapreplace(due, (at + self._itl_ns, self._serial, answer))
                continue
            heapq.heappop(due)
            self._ended(at, now)
        if due:
            self._alarm.set(due[0][0])

    def _ended(self, at: int, now: int) -> None:
        self._busy -= 1
        if self._queue:
            self._begin(self._queue.popleft(), at)
        self.device.changed(now, busy=self._busy > 0)


class _Answer:
    """One answer on its way."""

    __slots__ = ("_fd", "_left", "_tokens", "_transport", "fresh", "id", "usage")

    def __init__(self, transport: asyncio.Transport, tokens: int, name: str, *, usage: bool) -> None:
        self._transport = transport
        self._fd = transport.get_extra_info("socket").fileno()
        self._tokens = self._left = tokens
        self.id = name
        self.usage = usage
        self.fresh = True
        transport.write(_HEAD + _ROLE)

    def step(self) -> bool:
        """Write the token that is due; False after the last one, or when the client has gone."""
        if self._transport.is_closing():
            return False
        self._left -= 1
        if self._left:
            self._write(_TOKEN)
            return True
        count = f'{{"prompt_tokens":8,"completion_tokens":{self._tokens}}}'
        usage = _chunk(f'data: {{"choices":[],"usage":{count}}}\n\n'.encode())
        end = (usage if self.usage else b"") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self._write(_TOKEN + _LAST + end)
        return False

    def _write(self, data: bytes) -> None:
        """To the socket at once: the loop would keep it until all that is due has been written."""
        sent = 0
        if not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except OSError:  # full, or the client has gone: the transport knows what to do
                sent = 0
        if sent < len(data):
            self._transport.write(data[sent:])


class _Asked(msgspec.Struct):
    model: str | None = None
    max_tokens: int | None = None
    stream_options: dict[str, bool] | None = None


class _Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._name = ""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
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
        if self._transport is None:
            return
        if self._url.endswith(b"/chat/completions"):
            asked = msgspec.json.decode(bytes(self._body), type=_Asked)
            if asked.model not in {None, MODEL}:
                self._say(b"404 Not Found", _NO_MODEL)
                return
            # The truth's own count rules, so that every request of a case is alike.
            usage = bool((asked.stream_options or {}).get("include_usage"))
            tokens = self._engine.truth.tokens
            self._engine.accept(_Answer(self._transport, tokens, self._name, usage=usage))
            return
        found = self._control()
        self._say(*((b"404 Not Found", b"{}") if found is None else (b"200 OK", found)))

    def _say(self, status: bytes, body: bytes) -> None:
        assert self._transport is not None
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)

    def _control(self) -> bytes | None:
        """The answer of every path but the one that serves; None where there is none."""
        parts = urlsplit(self._url.decode("latin-1"))
        if parts.path.endswith("/models"):
            return _MODELS
        if parts.path == "/truth":
            return msgspec.json.encode(self._engine.told())
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
    _server: asyncio.Server = field(init=False)

    async def __aenter__(self) -> Self:
        """Listen."""
        self._engine = Engine(self.truth)
        self._engine.start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._engine), "127.0.0.1", self.port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop listening."""
        self._server.close()
        self._engine.close()


def main(argv: list[str] | None = None) -> int:
    """``python -m loadgen.truthserver``: prints its URL, serves until interrupted."""
    parser = argparse.ArgumentParser(prog="loadgen.truthserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft", type=float, default=0.05, help="seconds")
    parser.add_argument("--itl", type=float, default=0.01, help="seconds")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--slots", type=int)
    args = parser.parse_args(argv)
    truth = Truth(args.ttft, args.itl, args.tokens, args.slots)

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
