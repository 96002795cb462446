"""A client's connection, byte by byte: strictness, pipelining, limits, tunnels, faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Address, Backend, RelayConfig
from proxy.ipc import Closed
from proxy.relay.worker import Worker
from tests.fakes.meter import FakeMeter
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.timing import PATIENCE_SECONDS

CONFIG = RelayConfig(listen=Address("127.0.0.1", 0), drain_timeout_seconds=0.5)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def relay(*urls: str, config: RelayConfig = CONFIG, socket: str = "/nowhere") -> AsyncIterator[int]:
    worker = Worker(config, [Backend(url, f"b{n}") for n, url in enumerate(urls)], socket)
    await worker.start()
    try:
        yield worker.port
    finally:
        await worker.close()


async def say(port: int, data: bytes, *, until: bytes | None = None) -> bytes:
    """What comes back for ``data``: all, or up to ``until``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await (reader.readuntil(until) if until else reader.read())
    finally:
        writer.close()


class Serving:
    """A backend that answers each request of a connection with ``ok``."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        while True:
            try:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                self.left.set()
                return
            writer.write(OK)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: +2\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: g\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 70_000, 431),
        (POST + b"Content-Length: 9999999999\r\n\r\n", 413),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
async def test_what_parsers_may_read_differently_is_refused_and_not_forwarded(
    request_bytes: bytes, status: int
) -> None:
    async with RawUpstream(answer(OK)) as backend, relay(backend.url) as port:
        got = await say(port, request_bytes)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in got
    assert backend.head == b""


@pytest.mark.parametrize("body", [b"xyz\r\n", b"2\nok", b"2\r\nokk\r\n", b"1;" + b"a" * 5000])
async def test_a_malformed_chunk_ends_the_request(body: bytes) -> None:
    async with RawUpstream(answer(b"")) as backend, relay(backend.url) as port:
        backend._script = backend.hang
        got = await say(port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert got.startswith(b"HTTP/1.1 400 ")


async def test_pipelined_requests_are_answered_in_order_over_one_connection() -> None:
    serving = Serving()
    async with RawUpstream(serving) as backend, relay(backend.url) as port:
        one = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        got = await say(port, one + one.replace(b" /1 ", b" /2 ") + last)
    assert got.count(b"\r\n\r\nok") == 3
    assert backend.head.startswith(b"GET /1 ")
    assert [head.split()[1] for head in serving.heads] == [b"/2", b"/3"]


async def test_the_head_passes_as_it_was() -> None:
    head = b"HTTP/1.1 203 Fine\r\nX-CaSe: 1\r\nServer: own\r\nContent-Length: 0\r\n\r\n"
    async with RawUpstream(answer(head)) as backend, relay(backend.url) as port:
        got = await say(
            port, b"GET /a/../b//c%2f?q HTTP/1.1\r\nHost: h\r\nx-request-id: i\r\n\r\n", until=b"\r\n\r\n"
        )
    assert got == head[:-2] + b"x-request-id: i\r\n\r\n"
    assert backend.head.startswith(b"GET /a/../b//c%2f?q HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body_end_with_their_head(status: bytes) -> None:
    head = b"HTTP/1.1 %b\r\nETag: 1\r\n\r\n" % status
    async with RawUpstream(answer(head)) as backend, relay(backend.url) as port:
        got = await say(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.startswith(head[:-2])
    assert got.endswith(b"\r\n\r\n")
    assert b"chunked" not in got


async def test_head_keeps_the_length() -> None:
    async with RawUpstream(answer(OK[:-2])) as backend, relay(backend.url) as port:
        got = await say(port, b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 2\r\n" in got
    assert got.endswith(b"\r\n\r\n")


async def test_interim_answers_and_trailers() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with RawUpstream(answer(early + chunked)) as backend, relay(backend.url) as port:
        got = await say(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.startswith(early + b"HTTP/1.1 200 OK")
    assert got.endswith(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")


async def test_interim_answers_are_not_for_http_1_0_and_100_is_ours() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with RawUpstream(answer(early + OK)) as backend, relay(backend.url) as port:
        old = await say(port, b"GET / HTTP/1.0\r\n\r\n")
        new = await say(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 OK")
    assert new.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK")


async def test_lists_in_several_headers_are_one_list() -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Gone\r\nConnection: close\r\nX-Gone: 1\r\n"
    chain = b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\r\n"
    async with RawUpstream(answer(OK)) as backend, relay(backend.url) as port:
        got = await say(port, head + chain)
    assert got.endswith(b"ok")
    assert b"x-gone" not in backend.head.lower()
    assert b"X-Forwarded-For: 10.0.0.1, 10.0.0.2, 127.0.0.1\r\n" in backend.head


async def test_an_error_to_a_head_request_ends_the_connection() -> None:
    async with relay("http://127.0.0.1:1") as port:
        got = await say(port, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"Connection: close\r\n" in got


async def test_a_refused_client_that_goes_on_sending_still_reads_why() -> None:
    async with RawUpstream(answer(OK)) as backend, relay(backend.url) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 9999999999\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        for _ in range(50):
            writer.write(bytes(100_000))
            await writer.drain()
        assert (await reader.read()).endswith(b"}}")
        writer.close()


async def test_http_1_0_gets_the_bare_body() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with RawUpstream(answer(chunked)) as backend, relay(backend.url) as port:
        got = await say(port, b"GET / HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\nok")
    assert b"chunked" not in got


async def test_expect_100_continue() -> None:
    async with RawUpstream(answer(OK)) as backend, relay(backend.url) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    assert backend.body == b"{}"
    assert b"expect" not in backend.head.lower()


async def test_a_websocket_is_a_tunnel() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nready"
        )
        writer.write(await reader.readexactly(4))

    head = b"GET /v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with RawUpstream(echo) as backend, relay(backend.url) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        got = await reader.readuntil(b"ready")
        writer.write(b"\x81\x02ab")
        assert await reader.read() == b"\x81\x02ab"
        writer.close()
    assert got.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Upgrade: websocket\r\n" in got
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in backend.head


async def test_a_tunnel_brings_what_came_before_and_after_its_switch() -> None:
    got_by_backend = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got_by_backend
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        got_by_backend = await reader.read(5)
        writer.write(b"go")
        got_by_backend += await reader.read()
        ended.set()

    ended = asyncio.Event()
    head = b"GET /v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with RawUpstream(script) as backend, relay(backend.url) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"early")
        await reader.readuntil(b"go")
        writer.write(b"last")
        writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()
    assert got_by_backend == b"earlylast"


async def test_a_silent_tunnel_has_an_end() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    head = b"GET /v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    config = replace(CONFIG, tunnel_idle_timeout_seconds=0.05)
    async with RawUpstream(script) as backend, relay(backend.url, config=config) as port:
        got = await say(port, head)
    assert got.startswith(b"HTTP/1.1 101 ")


async def test_a_kept_connection_that_died_is_tried_anew() -> None:
    async with RawUpstream(answer(OK)) as backend, relay(backend.url) as port:
        for _ in range(3):  # this backend closes after each answer, without saying so
            got = await say(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", until=b"ok")
            assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "pieces",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_a_backend_that_fails_before_an_answer_is_a_502(pieces: bytes, tmp_path: Path) -> None:
    async with (
        FakeMeter(tmp_path) as meter,
        RawUpstream(answer(pieces)) as backend,
        relay(backend.url, socket=meter.socket) as port,
    ):
        got = await say(port, POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        closed = (await meter.until(Closed))[0]
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b'"code":"upstream_reset"' in got
    assert isinstance(closed, Closed)
    assert closed.error_type == "upstream_reset"


async def test_energy_for_a_body_that_breaks_is_a_502() -> None:
    torn = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}"
    async with RawUpstream(answer(torn)) as backend, relay(backend.url) as port:
        got = await say(port, POST + b"X-Energy: on\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert got.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("head_timeout_seconds", b"GET / HT", 408),
        ("body_timeout_seconds", POST + b"Content-Length: 2\r\n\r\n{", 408),
        ("first_byte_timeout_seconds", POST + b"Content-Length: 2\r\n\r\n{}", 504),
    ],
)
async def test_every_wait_has_an_end(name: str, data: bytes, status: int) -> None:
    backend = RawUpstream(answer(b""))
    backend._script = backend.hang
    config = replace(CONFIG, **{name: 0.05})  # type: ignore[arg-type]
    async with backend, relay(backend.url, config=config) as port:
        got = await say(port, data, until=b"}}")
    assert got.startswith(b"HTTP/1.1 %d " % status)


async def test_a_client_that_stops_reading_stops_the_backend() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                return
            sent += 65_536

    async with RawUpstream(flood) as backend, relay(backend.url) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stuck.wait()
        writer.close()
    assert sent < 32 * 1024 * 1024  # socket buffers of the kernel, and our watermark


async def test_a_dead_backend_among_several_costs_nobody_an_answer() -> None:
    async with RawUpstream(Serving()) as good, relay("http://127.0.0.1:1", good.url) as port:
        request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        statuses = [(await say(port, request)).split()[1] for _ in range(6)]
    assert statuses == [b"200"] * 6
