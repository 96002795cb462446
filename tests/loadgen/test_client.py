"""The client against sockets that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from loadgen.client import Client, Target

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


async def test_whole_answers_with_and_without_a_length() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as client:
        assert await client.fetch("GET", "/") == (200, b"hi")
    async with answering(b"HTTP/1.1 200 OK\r\n\r\nto the end") as client:
        assert await client.fetch("GET", "/") == (200, b"to the end")


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"rubbish\r\n\r\n",
     b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"],
)  # fmt: skip
def test_a_broken_answer_is_never_a_whole_one(data: bytes) -> None:
    async def ask() -> None:
        async with answering(data) as client:
            await client.fetch("GET", "/", limit_s=5)

    with pytest.raises(ConnectionError):
        asyncio.run(ask())


async def test_refused_connections_say_so() -> None:
    client = Client(Target("http://127.0.0.1:1"))
    with pytest.raises(ConnectionError, match="cannot connect"):
        await client.fetch("GET", "/")


def test_targets() -> None:
    assert Target("http://[::1]:80/x/v1").authority == "[::1]"
    assert Target("http://[::1]:80/x/v1").base == "/x"
    assert Target("https://host").port == 443
    for bad in ("host", "http://", "ftp://x", "http://h:99999"):
        with pytest.raises(ValueError, match="http://HOST:PORT"):
            Target(bad)
