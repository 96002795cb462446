"""A backend scripted byte by byte, on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawUpstream:
    """Reads one request's head and body, then runs the script; ``gone`` is set when the proxy hangs up."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.head = b""
        self.body = b""
        self.gone = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            self.head = await reader.readuntil(b"\r\n\r\n")
            for line in self.head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    self.body = await reader.readexactly(int(line.split(b":")[1]))
            await self._script(reader, writer)
        except ConnectionError:
            self.gone.set()
        finally:
            writer.close()

    async def hang(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        """Say nothing until the proxy goes."""
        await reader.read()
        self.gone.set()


def answer(head: bytes, *pieces: bytes) -> Script:
    """Send a head and pieces, each flushed."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (head, *pieces):
            writer.write(piece)
            await writer.drain()

    return script
