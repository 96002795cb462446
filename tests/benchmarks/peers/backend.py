"""The backend behind every peer: an answer at once, or a stream whose chunks come in step, as an engine's.

``python -m tests.benchmarks.peers.backend PORT``. A streamed request gets its head and first chunk at once,
then one chunk every ``seed`` ticks of 2 ms; ``user`` "hold" gets no more than the first.
"""

import asyncio
import sys
from typing import Final, cast

import httptools
import msgspec
import uvloop

TICK_SECONDS: Final = 0.002
JSON: Final = (
    b'{"id":"chatcmpl-8d2c6f7e1b0a4a5c9d3e2f1a0b9c8d7e","object":"chat.completion","created":1764000000,'
    b'"model":"bench-model","choices":[{"index":0,"message":{"role":"assistant","content":"'
    + b"The quick brown fox jumps over the lazy dog. "
    * 8
    + b'","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],'
    b'"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],'
    b'"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":312,"total_tokens":322,'
    b'"completion_tokens":10,"prompt_tokens_details":null},"prompt_logprobs":null}'
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-8d2c6f7e1b0a4a5c9d3e2f1a0b9c8d7e","object":"chat.completion.chunk",'
    b'"created":1764000000,"model":"bench-model","choices":[{"index":0,"delta":{"content":" quick"},'
    b'"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)
USAGE: Final = (
    b'data: {"id":"chatcmpl-8d2c6f7e1b0a4a5c9d3e2f1a0b9c8d7e","object":"chat.completion.chunk",'
    b'"created":1764000000,"model":"bench-model","choices":[],"usage":{"prompt_tokens":312,'
    b'"total_tokens":392,"completion_tokens":%d}}\n\n'
)
MODELS: Final = b'{"object":"list","data":[{"id":"bench-model","object":"model","owned_by":"bench"}]}'
_HEAD: Final = b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Dec 2025 12:00:00 GMT\r\nserver: uvicorn\r\n"
_STREAM: Final = (
    _HEAD + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


class _Asked(msgspec.Struct):
    stream: bool = False
    max_tokens: int = 1
    seed: int = 1
    user: str = ""


def _json(body: bytes) -> bytes:
    return _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


class Streams:
    """All running streams, moved on together."""

    def __init__(self) -> None:
        self._left: dict[Connection, list[int]] = {}  # chunks left, ticks between them
        self._tick = 0
        self._running = False

    def add(self, connection: "Connection", chunks: int, ticks: int) -> None:
        """Start a stream."""
        self._left[connection] = [chunks, ticks]
        if not self._running:
            self._running = True
            loop = asyncio.get_running_loop()
            loop.call_later(TICK_SECONDS, self._step, loop.time() + TICK_SECONDS)

    def remove(self, connection: "Connection") -> None:
        """Its client left."""
        self._left.pop(connection, None)

    def _step(self, due: float) -> None:
        self._tick += 1
        for connection, state in list(self._left.items()):
            if self._tick % state[1]:
                continue
            if state[0] == 0:
                del self._left[connection]
                connection.end()
            else:
                state[0] -= 1
                connection.write(CHUNK)
        self._running = bool(self._left)
        if self._running:
            loop = asyncio.get_running_loop()
            loop.call_at(max(due + TICK_SECONDS, loop.time()), self._step, due + TICK_SECONDS)


CHUNK: Final = _chunk(EVENT)


class Connection(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._body = b""
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._streams.remove(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        if self._parser.get_method() != b"POST":
            self.write(_json(MODELS))
            return
        asked = msgspec.json.decode(body, type=_Asked)
        if not asked.stream:
            self.write(_json(JSON))
            return
        self._count = asked.max_tokens
        self.write(_STREAM + CHUNK)
        if asked.user != "hold":
            self._streams.add(self, asked.max_tokens - 1, asked.seed)

    def end(self) -> None:
        """Send the last chunks: usage, the end."""
        self.write(_chunk(USAGE % self._count + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def main(port: int) -> None:
    streams = Streams()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(streams), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
