"""A backend scripted byte by byte, on a real socket."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawUpstream:
    """Reads one request's head and body, then runs the script; ``gone`` is set when the proxy hangs up.

    ``socket``: a Unix socket's path, instead of a port of ``host``.
    """

    def __init__(
        self,
        script: Script,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        socket: str | None = None,
    ) -> None:
        self._script = script
        self._host = host
        self._tls = tls
        self._socket = socket
        self.head = b""
        self.body = b""
        self.gone = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        if self._socket is not None:
            self._server = await asyncio.start_unix_server(self._serve, self._socket)
            self.url = f"unix:{self._socket}"
            return self
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
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
        """Send nothing until the proxy disconnects."""
        await reader.read()
        self.gone.set()


def answer(head: bytes, *pieces: bytes) -> Script:
    """Send a head and pieces, each flushed."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (head, *pieces):
            writer.write(piece)
            await writer.drain()

    return script
