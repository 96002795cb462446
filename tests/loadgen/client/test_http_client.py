"""The client against sockets that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loadgen.client.http_client import Client, Target
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.fakes.certificates import certificates

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[Client]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(Target(f"http://127.0.0.1:{port}"))
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def test_complete_responses_with_and_without_a_length() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as client:
        assert await client.fetch("GET", "/") == (200, b"hi")
    async with answering(b"HTTP/1.1 200 OK\r\n\r\nto the end") as client:
        assert await client.fetch("GET", "/") == (200, b"to the end")


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"rubbish\r\n\r\n",
     b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"],
)  # fmt: skip
def test_a_broken_response_is_never_complete(data: bytes) -> None:
    async def ask() -> None:
        async with answering(data) as client:
            await client.fetch("GET", "/", limit_s=5)

    with pytest.raises(ConnectionError):
        asyncio.run(ask())


async def test_a_refused_connection_is_reported() -> None:
    client = Client(Target("http://127.0.0.1:1"))
    with pytest.raises(ConnectionError, match="cannot connect"):
        await client.fetch("GET", "/")


def test_targets() -> None:
    assert Target("http://[::1]:80/x/v1").authority == "[::1]"
    assert Target("http://[::1]:80/x/v1").base == "/x"
    assert Target("https://host").port == 443
    for bad in ("host", "http://", "ftp://x", "http://h:99999"):
        with pytest.raises(ValueError, match="must be http://HOST"):
            Target(bad)


async def test_a_connection_is_reused_unless_the_response_closes_it() -> None:
    async with TruthServer(Truth(0.001, 0.001, 3)) as server:
        client = Client(Target(server.url))
        for _ in range(3):
            assert (await client.fetch("GET", "/v1/models"))[0] == 200
            assert (await client.fetch("POST", "/v1/chat/completions", body=b"{}"))[0] == 200
        assert client.opened == 1
        await client.close()
    async with answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi") as client:
        assert [await client.fetch("GET", "/") for _ in range(2)] == [(200, b"hi")] * 2
        assert client.opened == 2


async def test_no_more_connections_than_allowed() -> None:
    async with TruthServer(Truth(0.05, 0.001, 1)) as server:
        client = Client(Target(server.url), max_connections=1)
        first = asyncio.ensure_future(client.fetch("POST", "/v1/chat/completions", body=b"{}"))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError, match="all 1 connections"):
            await client.fetch("GET", "/v1/models")
        assert (await first)[0] == 200
        await client.close()


async def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificates(tmp_path, "localhost")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=made.server)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ConnectionError, match="certificate"):
        await Client(Target(url)).fetch("GET", "/")
    monkeypatch.setenv("SSL_CERT_FILE", made.authority)
    client = Client(Target(url))
    assert [await client.fetch("GET", "/") for _ in range(2)] == [(200, b"hi")] * 2
    assert client.opened == 1
    await client.close()
    server.close()
