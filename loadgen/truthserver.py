"""A server of known latency: what a client measures beyond it is the client's own error.

Tokens leave at absolute times (accepted + TTFT + k * ITL), written in one turn of the loop when due; the
stamps it kept say when they truly left. ``slots`` bounds the requests in service, the rest queue
(first come, first served), so queueing truth is known as well.
"""

import argparse
import asyncio
import heapq
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self

import httptools
import msgspec

from loadgen.alarm import Alarm
from proxy.units import ns_from_seconds

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_MODELS = b'{"object":"list","data":[{"id":"truth","object":"model"}]}'


@dataclass(frozen=True, slots=True)
class Truth:
    """What the server does to every request."""

    ttft_s: float = 0.05
    itl_s: float = 0.01
    tokens: int = 8
    slots: int | None = None


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
    _due: list[tuple[int, int, "_Answer"]] = field(default_factory=list)
    _queue: deque["_Answer"] = field(default_factory=deque)
    _serial: int = 0
    _busy: int = 0
    _alarm: Alarm = field(init=False)

    def start(self) -> None:
        """Needs a running loop."""
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

    def _begin(self, answer: "_Answer", now: int) -> None:
        self._busy += 1
        answer.next_ns = now + ns_from_seconds(self.truth.ttft_s)
        self._push(answer)

    def _push(self, answer: "_Answer") -> None:
        self._serial += 1
        heapq.heappush(self._due, (answer.next_ns, self._serial, answer))
        if self._due[0][2] is answer:
            self._alarm.set(answer.next_ns)

    def _ring(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic_ns():
            due, _, answer = heapq.heappop(self._due)
            if answer.step():
                answer.next_ns = due + ns_from_seconds(self.truth.itl_s)
                self._push(answer)
                continue
            self._busy -= 1
            while self._queue and (self.truth.slots is None or self._busy < self.truth.slots):
                self._begin(self._queue.popleft(), due)
        if self._due:
            self._alarm.set(self._due[0][0])


class _Answer:
    """One answer on its way."""

    __slots__ = ("_left", "_tokens", "_transport", "next_ns", "usage")

    def __init__(self, transport: asyncio.Transport, tokens: int, *, usage: bool) -> None:
        self._transport = transport
        self._tokens = self._left = tokens
        self.usage = usage
        self.next_ns = 0
        transport.write(_HEAD + _ROLE)

    def step(self) -> bool:
        """Write the token that is due; False after the last one, or when the client has gone."""
        if self._transport.is_closing():
            return False
        self._left -= 1
        if self._left:
            self._transport.write(_TOKEN)
            return True
        count = f'{{"prompt_tokens":8,"completion_tokens":{self._tokens}}}'
        usage = _chunk(f'data: {{"choices":[],"usage":{count}}}\n\n'.encode())
        end = (usage if self.usage else b"") + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self._transport.write(_TOKEN + _LAST + end)
        return False


class _Asked(msgspec.Struct):
    max_tokens: int | None = None
    stream_options: dict[str, bool] | None = None


class _Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
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
        self._body.clear()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        if self._url.endswith(b"/chat/completions"):
            asked = msgspec.json.decode(bytes(self._body), type=_Asked)
            # The truth's own count rules, so that every request of a case is alike.
            usage = bool((asked.stream_options or {}).get("include_usage"))
            self._engine.accept(_Answer(self._transport, self._engine.truth.tokens, usage=usage))
            return
        code, body = (b"200 OK", _MODELS) if self._url.endswith(b"/models") else (b"404 No", b"{}")
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (code, len(body), body)
        )


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
