"""A backend that responds as defined by :mod:`tests.soak.content`, with faults on command."""

import asyncio
import contextlib
import hashlib
from collections import deque
from typing import Self

import msgspec

from tests.soak.content import ERROR, MODEL, events, large, whole

Fault = str  # of one answer: truncated, garbage, error, reset
_GAP_SECONDS = 0.004


class SoakBackend:
    """``faults`` befall its next answers, one each; ``go`` cleared: it is silent."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.go = asyncio.Event()
        self.go.set()
        self.answered = 0
        self.url = ""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for _turn in range(4):
            self.reset()
            await asyncio.sleep(0)

    async def listen(self) -> None:
        """Take connections, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=1 << 20)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def refuse(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    @property
    def listens(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                self.answered += 1
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        path = head.split(b" ", 2)[1].decode()
        if b"\r\nupgrade:" in head:
            await self._echo(reader, writer)
            return False
        body = await _body(head, reader)
        await self.go.wait()
        if path == "/health":
            return await _send(writer, b"", b"Content-Length: 0")
        if path == "/v1/models":
            return await _json(writer, 200, msgspec.json.encode({"data": [{"id": MODEL}]}))
        fault = self.faults.popleft() if self.faults else ""
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "garbage":
            writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            return False
        if fault == "error":
            return await _json(writer, 500, ERROR)
        return await self._good(path, body, writer, cut=fault == "truncated")

    async def _good(self, path: str, body: bytes, writer: asyncio.StreamWriter, *, cut: bool) -> bool:
        if path.startswith("/upload"):
            return await _json(writer, 200, hashlib.sha256(body).hexdigest().encode(), cut=cut)
        if path.startswith("/large/"):
            return await _json(writer, 200, large(int(path.rpartition("/")[2])), cut=cut)
        if path != "/v1/chat/completions":
            return await _json(writer, 404, b"{}")
        asked = msgspec.json.decode(body)
        if not asked.get("stream"):
            return await _json(writer, 200, whole(asked["seed"]), cut=cut)
        await _send(writer, b"", b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked")
        made = events(asked["seed"])
        if "stream_options" not in asked:
            made = made[:-2] + made[-1:]
        for event in made[: len(made) // 2] if cut else made:
            await self.go.wait()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(_GAP_SECONDS)
        if not cut:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return not cut

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo the bytes of a tunnel."""
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await reader.read(65_536):
            await self.go.wait()
            writer.write(data)
            await writer.drain()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if b"transfer-encoding: chunked" not in head:
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length or 0))
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)


async def _json(writer: asyncio.StreamWriter, status: int, body: bytes, *, cut: bool = False) -> bool:
    lines = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
    return await _send(writer, body[: len(body) // 2] if cut else body, lines, status) and not cut


async def _send(writer: asyncio.StreamWriter, body: bytes, lines: bytes, status: int = 200) -> bool:
    writer.write(b"HTTP/1.1 %d X\r\n%b\r\n\r\n%b" % (status, lines, body))
    await writer.drain()
    return True
