"""Streams of many chunks, sent one at a time: all but the first take ``response/fast_path.py``."""

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.config import Backend, RelayConfig
from proxy.ipc import Chunk, Closed
from proxy.relay.client_connection import ClientConnection
from proxy.relay.worker import Worker
from proxy.units import NS_PER_SECOND, ns_from_seconds
from tests.fakes.certificates import certificates
from tests.fakes.meter import FakeMeter
from tests.fakes.raw_upstream import RawUpstream
from tests.proxy.relay.response.test_fast_path import event
from tests.proxy.relay.test_client_connection import CONFIG, POST
from tests.proxy.relay.test_worker import DONE, ROLE, SSE, USAGE, chunked
from tests.timing import PATIENCE_SECONDS

BODY = b'{"stream":true,"stream_options":{"include_usage":true}}'
REQUEST = POST + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
FIRST = chunked(ROLE, end=False)[0]
ONE = chunked(event("one"), end=False)[0]
END = b"".join(chunked(USAGE, DONE))
STALL_NS = ns_from_seconds(CONFIG.stall_timeout_seconds) + 1
MANY = 20


Asked = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


class Conversation:
    """A client, a relay, and a backend that says what it is told, once the client has what it said before."""

    def __init__(self, worker: Worker, asked: Asked, request: bytes = REQUEST) -> None:
        self.worker = worker
        self._asked = asked
        self._request = request
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.backend_reader: asyncio.StreamReader
        self.backend: asyncio.StreamWriter

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        name = "127.0.0.1" if tls else None
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.worker.port, ssl=tls, server_hostname=name
        )
        self.writer.write(self._request)
        self.backend_reader, self.backend = await asyncio.wait_for(self._asked.get(), PATIENCE_SECONDS)
        await self.begin()

    async def begin(self) -> None:
        self.backend.write(SSE + FIRST)
        await asyncio.wait_for(self.reader.readuntil(FIRST), PATIENCE_SECONDS)

    async def pass_on(self, data: bytes) -> bytes:
        """What the client gets, as many bytes as the backend says now."""
        self.backend.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), PATIENCE_SECONDS)

    async def chunks(self, count: int = MANY) -> None:
        for _ in range(count):
            assert await self.pass_on(ONE) == ONE


@asynccontextmanager
async def conversation(
    *,
    config: RelayConfig = CONFIG,
    tls: ssl.SSLContext | None = None,
    meter: str = "/nowhere",
    request: bytes = REQUEST,
    socket: str | None = None,
) -> AsyncIterator[Conversation]:
    asked: Asked = asyncio.Queue()
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait((reader, writer))
        await over.wait()

    async with RawUpstream(script, socket=socket) as backend:
        worker = Worker(config, [Backend(backend.url, "b")], meter)
        await worker.start()
        said = Conversation(worker, asked, request)
        await said.open(tls)
        try:
            yield said
        finally:
            over.set()
            said.writer.close()
            await worker.close()


async def test_it_passes_byte_for_byte_and_every_token_is_told(tmp_path: Path) -> None:
    async with FakeMeter(tmp_path) as meter, conversation(meter=meter.socket) as said:
        await said.chunks()
        two = ONE + chunked(event("two"), end=False)[0]
        assert await said.pass_on(two) == two
        other = chunked(event("x", more=',"finish_reason":"stop"'), end=False)[0]
        assert await said.pass_on(other) == other
        await said.chunks()
        assert await said.pass_on(END) == END
        chunks = await meter.until(Chunk, 2 * MANY + 3)
        stamps = [one.t_ns for one in chunks if isinstance(one, Chunk)]
        assert stamps == sorted(stamps)
        assert stamps[-1] <= now_ns()
        (closed,) = await meter.until(Closed)
    assert isinstance(closed, Closed)
    assert (closed.end.status, closed.end.cancelled, closed.end.prompt_tokens) == (200, False, 3)


async def test_the_connections_serve_the_next_request() -> None:
    async with conversation() as said:
        await said.chunks()
        await said.pass_on(END)
        said.writer.write(REQUEST)
        asked = await asyncio.wait_for(said.backend_reader.readuntil(BODY), PATIENCE_SECONDS)
        assert asked.startswith(b"POST /v1/chat/completions")
        await said.begin()
        await said.chunks()
        assert await said.pass_on(END) == END
        assert len(said.worker._context.clients) == 1


async def test_a_client_that_leaves_takes_its_backend_request_along_at_once(tmp_path: Path) -> None:
    async with FakeMeter(tmp_path) as meter, conversation(meter=meter.socket) as said:
        await said.chunks()
        said.writer.transport.abort()
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(said.backend_reader.read(), PATIENCE_SECONDS) == b""
        (closed,) = await meter.until(Closed)
    assert isinstance(closed, Closed)
    assert closed.end.cancelled
    assert len([one for one in meter.messages if isinstance(one, Chunk)]) == MANY


async def test_a_backend_that_dies_breaks_the_stream() -> None:
    async with conversation() as said:
        await said.chunks()
        said.backend.transport.abort()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(said.reader.readuntil(b"0\r\n\r\n"), PATIENCE_SECONDS)


async def test_a_backend_that_hangs_up_after_a_last_chunk_breaks_the_stream_after_it() -> None:
    async with conversation() as said:
        await said.chunks()
        said.backend.write(ONE)
        said.backend.close()
        with pytest.raises(asyncio.IncompleteReadError) as broken:
            await asyncio.wait_for(said.reader.readuntil(b"0\r\n\r\n"), PATIENCE_SECONDS)
        assert broken.value.partial == ONE


async def test_a_backend_that_stalls_is_not_waited_for_for_ever() -> None:
    async with conversation() as said:
        (client,) = said.worker._context.clients
        for _ in range(4):
            await said.chunks(5)
            client.sweep(now_ns() + STALL_NS - NS_PER_SECOND)  # a stream that goes on is none that stalls
        client.sweep(now_ns() + STALL_NS)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(said.reader.readuntil(b"0\r\n\r\n"), PATIENCE_SECONDS)


async def test_a_client_that_stops_reading_stops_its_backend_and_loses_nothing() -> None:
    async with conversation() as said:
        await said.chunks()
        said.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        try:
            async with asyncio.timeout(0.7):
                while True:
                    said.backend.write(ONE * 100)
                    sent += 100
                    await said.backend.drain()
        except TimeoutError:
            pass
        assert sent * len(ONE) < 32 * 1024 * 1024
        said.writer.transport.resume_reading()  # type: ignore[attr-defined]
        said.backend.write(END)
        received = await asyncio.wait_for(
            said.reader.readexactly(sent * len(ONE) + len(END)), PATIENCE_SECONDS
        )
        assert received == ONE * sent + END
        await said.chunks(0)


async def test_the_next_meter_is_told_of_tokens_that_passed_before(tmp_path: Path) -> None:
    async with conversation(meter=str(tmp_path / "meter.sock")) as said:
        async with FakeMeter(tmp_path) as first:
            await said.chunks()
            await first.until(Chunk, MANY)
        while said.worker._link._transport is not None:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)
        await said.chunks(5)
        async with FakeMeter(tmp_path) as second:
            told = [one.tokens for one in await second.until(Chunk, 7) if isinstance(one, Chunk)]
    assert told == [1, MANY - 1, 1, 1, 1, 1, 1]


async def test_a_drain_lets_it_end() -> None:
    async with conversation(config=replace(CONFIG, drain_timeout_seconds=5.0)) as said:
        await said.chunks()
        closing = asyncio.ensure_future(said.worker.close())
        await said.chunks()
        assert await said.pass_on(END) == END
        await asyncio.wait_for(closing, PATIENCE_SECONDS)


async def test_under_tls_the_transport_encrypts_every_chunk(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    config = replace(CONFIG, tls_certificate=made.chain, tls_key=made.key)
    trusting = ssl.create_default_context(cafile=made.authority)
    async with conversation(config=config, tls=trusting) as said:
        await said.chunks()
        assert await said.pass_on(END) == END


async def test_the_usage_that_its_client_did_not_ask_for_is_kept_back(tmp_path: Path) -> None:
    body = b'{"stream":true}'
    request = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    async with FakeMeter(tmp_path) as meter, conversation(meter=meter.socket, request=request) as said:
        await said.chunks()
        said.backend.write(END)
        rest = await asyncio.wait_for(said.reader.readuntil(b"0\r\n\r\n"), PATIENCE_SECONDS)
        (closed,) = await meter.until(Closed)
    assert rest == b"".join(chunked(DONE))
    assert isinstance(closed, Closed)
    assert closed.end.prompt_tokens == 3


async def test_a_placeholder_of_usage_in_every_chunk_is_removed_from_all() -> None:
    body = b'{"stream":true}'
    request = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    (sent,) = chunked(event("one").replace(b"}\n\n", b',"usage":null}\n\n'), end=False)
    async with conversation(request=request) as stream:
        for _ in range(3):  # a chunk that was edited must not become the template of the next
            stream.backend.write(sent)
            got = await asyncio.wait_for(stream.reader.readexactly(len(ONE)), PATIENCE_SECONDS)
            assert got == ONE


async def test_energy_is_said_at_its_end(tmp_path: Path) -> None:
    request = REQUEST.replace(b"\r\n", b"\r\nx-energy: on\r\n", 1)
    async with FakeMeter(tmp_path) as meter, conversation(meter=meter.socket, request=request) as said:
        await said.chunks()
        said.backend.write(END)
        rest = await asyncio.wait_for(said.reader.readuntil(b"0\r\n\r\n"), PATIENCE_SECONDS)
    assert b'"usage":{"energy":{"joules":7.5,"final":true},' in rest
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_backend_behind_a_unix_socket(tmp_path: Path) -> None:
    async with conversation(socket=str(tmp_path / "engine.sock")) as said:
        await said.chunks()
        assert await said.pass_on(END) == END


async def test_a_slow_client_is_no_backend_that_stalls() -> None:
    config = replace(CONFIG, write_timeout_seconds=2 * CONFIG.stall_timeout_seconds)
    async with conversation(config=config) as said:
        await said.chunks()
        said.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        (client,) = said.worker._context.clients
        assert isinstance(client, ClientConnection)
        while client._write_paused_ns is None:  # until the client's buffers are full
            said.backend.write(ONE * 20)
            sent += 20
            await asyncio.sleep(0)
        client.sweep(now_ns() + STALL_NS)
        said.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(said.reader.readexactly(sent * len(ONE)), PATIENCE_SECONDS)
        await said.chunks()
        assert await said.pass_on(END) == END


async def test_what_cannot_be_parsed_passes_and_harms_no_other_stream() -> None:
    deep = b'data: {"choices":[],"extra":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n"
    nested = chunked(deep, end=False)[0]
    async with conversation() as said:
        other = Conversation(said.worker, said._asked)
        await other.open()
        await said.chunks()
        await other.chunks()
        said.backend.write(nested)
        other.backend.write(END)
        assert await asyncio.wait_for(said.reader.readexactly(len(nested)), PATIENCE_SECONDS) == nested
        assert await asyncio.wait_for(other.reader.readexactly(len(END)), PATIENCE_SECONDS) == END
        await said.chunks()
        assert await said.pass_on(END) == END
        other.writer.close()


async def test_no_client_gets_a_byte_of_anothers_stream() -> None:
    """Connections break off on both sides, so that their descriptors are used again at once."""
    rng = random.Random(7)
    names = iter(range(10_000))
    served = 0

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        name = f"<{next(names)}>"
        writer.write(SSE + FIRST)
        breaks = rng.randrange(100) if rng.random() < 0.3 else None
        for number in range(60):
            whole = chunked(event(f"{name}{number}"), end=False)[0]
            cut = rng.randrange(len(whole)) if rng.random() < 0.02 else len(whole)
            writer.write(whole[:cut])
            await asyncio.sleep(rng.random() * 0.002)
            writer.write(whole[cut:])
            await writer.drain()
            if number == breaks:
                writer.transport.abort()
        writer.write(END)

    async def client(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        got, enough = b"", rng.randrange(300, 12_000)
        with suppress(ConnectionResetError):
            while len(got) < enough and not got.endswith(END):
                more = await asyncio.wait_for(reader.read(65_536), PATIENCE_SECONDS)
                if not more:
                    break
                got += more
        writer.transport.abort()
        return re.findall(rb'"content":"(<\d+>)(\d+)"', got)

    async def user(port: int) -> None:
        while served < 300:
            said = await client(port)
            assert len({name for name, _ in said}) <= 1
            assert [int(number) for _, number in said] == list(range(len(said)))

    async with RawUpstream(script) as backend:
        worker = Worker(CONFIG, [Backend(backend.url, "b")], "/nowhere")
        await worker.start()
        await asyncio.gather(*(user(worker.port) for _ in range(20)))
        await worker.close()
