"""A backend that can fall ill and come back: paths and their answers on a real socket."""

import asyncio
import contextlib
from typing import Self

import msgspec


class Backend:
    """``answers`` by path: (status, body); other paths give 200 and its name.

    ``seen`` counts requests by path, ``bodies`` holds what they sent. ``refuses``: a body that holds it gets
    a 422 which names it. ``drops``: the next so many requests are read and get no answer.
    """

    def __init__(self, name: str, *models: str, kind: str | None = None) -> None:
        """``kind``: content type of all its answers."""
        self.name = name
        self._kind = f"Content-Type: {kind}\r\n".encode() if kind is not None else b""
        self.heads: list[bytes] = []
        self.answers: dict[str, tuple[int, bytes]] = {"/health": (200, b"")}
        self.seen: dict[str, int] = {}
        self.bodies: list[bytes] = []
        self.refuses: bytes | None = None
        self.drops = 0
        self.silent = False
        self.url = ""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.serve(*models)

    def serve(self, *models: str) -> None:
        """From now on it lists these."""
        listed = {"object": "list", "data": [{"id": model, "object": "model"} for model in models]}
        self.answers["/v1/models"] = (200, msgspec.json.encode(listed))

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def down(self) -> None:
        """Refuse connections, reset those that are open."""
        if self._server is not None:
            self._server.close()
        for _ in range(4):  # one that was accepted a moment ago has its writer a turn or two later
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self._answer(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split(b" ", 2)[1].decode()
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        sent = await reader.readexactly(int(length or 0))
        self.bodies.append(sent)
        self.seen[path] = self.seen.get(path, 0) + 1
        if self.silent:
            await reader.read()
            raise ConnectionResetError
        if self.drops:
            self.drops -= 1
            raise ConnectionResetError
        status, body = self.answers.get(path, (200, self.name.encode()))
        if self.refuses is not None and self.refuses in sent:
            status, body = 422, b'{"error":"unknown field ' + self.refuses + b'"}'
        lines = self._kind if status == 204 else self._kind + b"Content-Length: %d\r\n" % len(body)
        writer.write(b"HTTP/1.1 %d X\r\n%b\r\n%b" % (status, lines, body))
        await writer.drain()
