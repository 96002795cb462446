"""The client before every peer: closed loops over kept connections, and streams that are held open."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, cast

import httptools
import msgspec
import uvloop

PATH: Final = "/v1/chat/completions"
PROMPT: Final = "You are a helpful assistant. Summarize the following text in two sentences. " * 16


def request(
    path: str = PATH, *, stream: bool = False, chunks: int = 1, ticks: int = 1, hold: bool = False
) -> bytes:
    """Return a chat request as an OpenAI client sends it, 1.4 KB with its prompt."""
    body = msgspec.json.encode(
        {
            "model": "bench-model",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": chunks,
            "temperature": 0.7,
            "seed": ticks,
            "user": "hold" if hold else "bench",
            "stream": stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        }
    )
    lines = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nUser-Agent: OpenAI/2.0\r\nAuthorization: Bearer sk-bench\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return lines.encode() + body


class Caller(asyncio.Protocol):
    """One connection, which sends the next request when the last response is complete."""

    def __init__(self, data: bytes, count: int) -> None:
        self.first_seconds: list[float] = []  # from the request to the first byte of a body
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._data = data
        self._left = count
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._left -= 1
        self._tail = b""
        self._sent = perf_counter()
        self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self._tail:
            self.first_seconds.append(perf_counter() - self._sent)
            if not self.begun.done():
                self.begun.set_result(None)
        self._tail = (self._tail + body)[-64:] if len(body) < 64 else body[-64:]

    def on_message_complete(self) -> None:
        tail = self._tail.rstrip()
        if self._parser.get_status_code() != 200 or not tail.endswith((b"[DONE]", b"}")):
            self._fail(f"status {self._parser.get_status_code()}, ends {tail!r}")
        elif self._left:
            self._parser = httptools.HttpResponseParser(self)
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"connection lost: {error}")

    def _fail(self, reason: str) -> None:
        for future in (self.done, self.begun):
            if not future.done():
                future.set_exception(ConnectionError(reason))
                future.exception()  # it may be that nobody waits for this one

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Drives peers from one loop; every call returns when all responses are complete."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def drive(self, port: int, data: bytes, connections: int, each: int) -> list[float]:
        """Run closed loops; return the seconds to the first byte of each body."""
        return self._runner.run(_drive(port, data, connections, each))

    @contextmanager
    def holding(self, port: int, data: bytes, count: int) -> Iterator[None]:
        """So many streams, begun and then held open."""
        callers = self._runner.run(_open(port, data, count))
        try:
            yield
        finally:
            for caller in callers:
                caller.close()
            self._runner.run(asyncio.sleep(0.2))


@contextmanager
def client() -> Iterator[Client]:
    """Return a client with a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield Client(runner)


async def _connect(port: int, data: bytes, each: int) -> Caller:
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(lambda: Caller(data, each), "127.0.0.1", port)
    return caller


async def _drive(port: int, data: bytes, connections: int, each: int) -> list[float]:
    callers = await asyncio.gather(*(_connect(port, data, each) for _ in range(connections)))
    try:
        await asyncio.gather(*(caller.done for caller in callers))
    finally:
        for caller in callers:
            caller.close()
    return [seconds for caller in callers for seconds in caller.first_seconds]


async def _open(port: int, data: bytes, count: int) -> list[Caller]:
    callers: list[Caller] = []
    while len(callers) < count:  # a batch at a time: no peer is judged by its backlog
        batch = [await _connect(port, data, 1) for _ in range(min(50, count - len(callers)))]
        await asyncio.gather(*(caller.begun for caller in batch))
        callers += batch
    return callers
