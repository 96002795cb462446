"""The scripted backend behind the proxy: raw bytes, one port for all cases."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, cast

from tests.contract.wire import LIMIT, Head, payload, pieces, read_head

OK: Final = b'{"id":"c","object":"list","data":[],"choices":[]}'
_PROBES: Final = (b"/health", b"/readiness", b"/liveness")
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


def json(body: bytes = OK, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    """Return a complete JSON response."""
    head = (b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    return b"\r\n".join((*head, *lines, b"", body))


def chunk(data: bytes) -> bytes:
    """One chunk; the last where there is no data."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def hold(writer: asyncio.StreamWriter, *, held: bool) -> None:
    """Stop to read a connection, or go on."""
    transport = cast(asyncio.Transport, writer.transport)
    (transport.pause_reading if held else transport.resume_reading)()


class Call:
    """One request at the backend; ``body`` is read only on access."""

    def __init__(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.reader = reader
        self.writer = writer
        self.body = b""
        self.trailers = b""

    async def read(self) -> bytes:
        """Return the complete body."""
        chunked = b"chunked" in self.head.value(b"transfer-encoding").lower()
        if self.head.value(b"expect"):
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = []
        async for piece in pieces(self.reader, self.head, closes=False):
            got.append(payload(piece) if chunked else piece)
            self.trailers = piece.partition(b"\r\n")[2] if chunked else b""
        self.body = b"".join(got)
        return self.body

    def own_buffers(self, size: int) -> None:
        """Make the kernel's buffers on this side small: what is held is then held by the proxy."""
        sock = self.writer.get_extra_info("socket")
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, size)

    async def write(self, *data: bytes) -> None:
        """Send, each flushed by itself."""
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()

    def hold(self, *, held: bool) -> None:
        """Stop to read, or go on."""
        hold(self.writer, held=held)

    def reset(self) -> None:
        """End the connection by a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def left(self) -> float:
        """When the proxy hung up, in seconds of ``perf_counter``."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass
        return perf_counter()


Script = Callable[[Call], Awaitable[None]]


async def _default(call: Call) -> None:
    await call.read()
    await call.write(json())


def reply(*data: bytes) -> Script:
    """Read the request, send this."""

    async def script(call: Call) -> None:
        await call.read()
        await call.write(*data)

    return script


def closing(*data: bytes) -> Script:
    """Read the request, send this, end the connection."""

    async def script(call: Call) -> None:
        await call.read()
        await call.write(*data)
        call.writer.close()

    return script


class Backend:
    """Answers each request by the present script; counts connections, keeps requests."""

    def __init__(self) -> None:
        self.port = 0
        self.script: Script = _default
        self.calls: list[Call] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and end those there are."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.02)

    def reset(self) -> None:
        """Forget the last case; its connections end."""
        self.script = _default
        for writer in tuple(self._writers):
            writer.close()
        self.calls.clear()
        self.connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        first = True
        try:
            while not writer.is_closing():
                call = Call(await read_head(reader), reader, writer)
                if call.head.line.split(b" ")[1].startswith(_PROBES):
                    await _default(call)
                    continue
                self.connections += first
                first = False
                self.calls.append(call)
                await self.script(call)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
