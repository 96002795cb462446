"""Connections to backends: Unix sockets, IPv6, certificates, what hangs up; pooling and its limits."""

import asyncio
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Backend
from proxy.relay.http.heads import ResponseHead
from proxy.relay.upstreams.connections import ConnectionPool
from proxy.relay.worker import Worker
from tests.fakes.certificates import certificates
from tests.fakes.ipv6 import has_ipv6
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.proxy.relay.test_client_connection import CONFIG, OK, POST, Serving, relay, say
from tests.timing import PATIENCE_SECONDS

GET = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def ask(backend: Backend, data: bytes = GET) -> bytes:
    """What comes back through a relay before this backend."""
    worker = Worker(CONFIG, [backend], "/nowhere")
    await worker.start()
    try:
        return await say(worker.port, data)
    finally:
        await worker.close()


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with RawUpstream(answer(OK), socket=str(tmp_path / "engine.sock")) as backend:
        got = await ask(Backend(backend.url, "b"))
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"Host: localhost\r\n" in backend.head


async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    got = await ask(Backend(f"unix:{tmp_path}/none.sock", "b"))
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b'"code":"backend_unreachable"' in got


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_ipv6() -> None:
    async with RawUpstream(answer(OK), host="::1") as backend:
        got = await ask(Backend(backend.url, "b"))
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"Host: " + backend.url.removeprefix("http://").encode() in backend.head


async def test_tls_with_the_backends_own_authority(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    async with RawUpstream(answer(OK), tls=made.server) as backend:
        trusted = await ask(Backend(backend.url, "b", ca_file=made.authority))
        unchecked = await ask(Backend(backend.url, "b", verify_tls=False))
    assert trusted.startswith(b"HTTP/1.1 200 ")
    assert unchecked.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("names", "trusted", "reason"),
    [
        (("127.0.0.1",), False, b"unable to get local issuer"),
        (("elsewhere.test",), True, b"IP address mismatch"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_a_clear_502(
    tmp_path: Path, names: tuple[str, ...], trusted: bool, reason: bytes
) -> None:
    made = certificates(tmp_path, *names)
    async with RawUpstream(answer(OK), tls=made.server) as backend:
        got = await ask(Backend(backend.url, "b", ca_file=made.authority if trusted else None))
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b'"code":"backend_certificate"' in got
    assert reason in got
    assert backend.head == b""


async def test_a_name_that_is_not_known_is_a_502() -> None:
    got = await ask(Backend("http://no-such-host.invalid", "b"))
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b'"code":"backend_unreachable"' in got


async def test_a_handshake_that_does_not_come_is_a_504() -> None:
    backend = RawUpstream(answer(b""))
    backend._script = backend.hang
    config = replace(CONFIG, connect_timeout_seconds=0.05)
    async with backend, relay(backend.url.replace("http:", "https:"), config=config) as port:
        got = await say(port, GET)
    assert got.startswith(b"HTTP/1.1 504 ")
    assert b"within 0.05 s" in got


async def test_idle_connections_are_kept_and_closed_in_time() -> None:
    serving = Serving()
    config = replace(CONFIG, upstream_idle_timeout_seconds=0.05)
    async with RawUpstream(serving) as backend, relay(backend.url, config=config) as port:
        await say(port, GET)
        await say(port, GET)
        assert len(serving.heads) == 1  # the second request of the one connection
        async with asyncio.timeout(PATIENCE_SECONDS):
            await serving.left.wait()


async def test_bytes_after_an_answer_reach_nobody() -> None:
    served = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        await reader.read()

    async with RawUpstream(script) as backend, relay(backend.url) as port:
        first, second = await say(port, GET), await say(port, GET)
    assert first.endswith(b"\r\n\r\nok")
    assert second.endswith(b"\r\n\r\nok")
    assert served == 2


async def test_a_backend_that_switches_protocols_unasked_is_a_502() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    asks_h2c = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    async with RawUpstream(answer(switch)) as backend, relay(backend.url) as port:
        got = await say(port, asks_h2c)
    assert got.startswith(b"HTTP/1.1 502 ")
    assert b"upgrade" not in backend.head.lower()


@pytest.mark.parametrize("split", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_new_connection_that_dies_is_not_tried_again(split: bytes) -> None:
    tries = 0

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.write(split)

    async with RawUpstream(script) as backend, relay(backend.url) as port:
        got = await say(port, POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert got.startswith(b"HTTP/1.1 502 ")
    assert tries == 1


class Lost:
    """Owner of a request that waits for the end of its connection."""

    def __init__(self) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_interim(self, head: ResponseHead) -> None: ...
    def on_head(self, head: ResponseHead) -> None: ...
    def on_body(self, raw: bytes, pieces: list[bytes]) -> None: ...
    def on_end(self) -> None: ...
    def on_read(self) -> None: ...
    def on_writable(self, *, writable: bool) -> None: ...

    def on_lost(self, reason: str) -> None:
        self.reason.set_result(reason)


@pytest.mark.parametrize(
    ("closed_first", "reset", "unprocessed"),
    [
        (True, False, True),
        (False, False, False),
        (False, True, False),  # bytes may have been read before their acknowledgement was sent
    ],
)
async def test_whether_a_backend_can_have_read_a_request(
    closed_first: bool, reset: bool, unprocessed: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pool = ConnectionPool(Backend(f"http://127.0.0.1:{server.getsockname()[1]}", "b"), CONFIG)
        connection = await pool.connect()
        far, _ = server.accept()
    if closed_first:
        far.close()  # the loop does not see that before the request is written
    lost = Lost()
    connection.send_request(lost, b"POST", b"x" * 100)
    if not closed_first:
        assert far.recv(100, socket.MSG_WAITALL)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
        far.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await lost.reason
    assert connection.unprocessed == unprocessed
