"""The environment of a case: a client in front of the proxy, the scripted backend behind it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import psutil

from tests.contract.backend import Backend, Call, hold
from tests.contract.wire import LIMIT, Answer, read_answer

SECONDS: Final = 30.0  # longest wait of a case: no measure of speed, for the machine may be busy
SOON_SECONDS: Final = 5.0  # within which happens what does not wait for something else
GET: Final = b"GET /v1/models HTTP/1.1\r\nHost: proxy.test\r\n"
POST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy.test\r\nContent-Type: application/json\r\n"
CHAT: Final = b'{"model":"bench-model","messages":[{"role":"user","content":"hello"}],"max_tokens":4}'
STREAM: Final = CHAT[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}'


class DiffersError(AssertionError):
    """``str`` is a short description of what the proxy did instead."""


def check(right: object, instead: str) -> None:
    """Raise :class:`DiffersError` unless it is right."""
    if not right:
        raise DiffersError(instead)


def post(body: bytes = CHAT, *lines: bytes) -> bytes:
    """Return a chat request with a length."""
    return (
        POST + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


class Client:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def answer(self, method: bytes = b"GET") -> Answer:
        """Return the next response."""
        try:
            return await read_answer(self.reader, method)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise DiffersError("closed without an answer") from error

    async def ask(self, data: bytes) -> Answer:
        """Send a request, read its answer."""
        self.send(data)
        return await self.answer(data.partition(b" ")[0])

    def hold(self, *, held: bool) -> None:
        """Stop to read, or go on."""
        hold(self.writer, held=held)

    def leave(self) -> None:
        """Close the connection at once."""
        self.writer.transport.abort()


@dataclass(slots=True)
class Stand:
    """A proxy and what is on both sides of it."""

    host: str
    port: int
    backend: Backend
    pids: tuple[int, ...] = ()  # of the proxy; empty: not known

    @asynccontextmanager
    async def client(self, buffers: int | None = None) -> AsyncIterator[Client]:
        """Open a connection; ``buffers``: bytes that the kernel may buffer on this side."""
        sock = socket.socket()
        sock.setblocking(False)
        if buffers is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        await asyncio.get_running_loop().sock_connect(sock, (self.host, self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=LIMIT)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, data: bytes) -> Answer:
        """One request over a connection of its own."""
        async with self.client() as client:
            return await client.ask(data)

    async def call(self, count: int = 1) -> Call:
        """Return the ``count``-th request that reached the backend, once it has."""
        while len(self.backend.calls) < count:  # noqa: ASYNC110 - bounded by the case's time
            await asyncio.sleep(0.002)
        return self.backend.calls[count - 1]

    def rss_bytes(self) -> int:
        """Resident memory of the proxy's processes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids)


Run = Callable[[Stand], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement for a proxy."""

    group: str
    title: str
    run: Run
    needs_pids: bool = False


@dataclass(slots=True)
class Group:
    """Cases of one kind, in the order they are written in."""

    name: str
    cases: list[Case] = field(default_factory=list)

    def case(self, title: str, *, needs_pids: bool = False) -> Callable[[Run], Run]:
        """Add a function as a case."""

        def add(run: Run) -> Run:
            self.cases.append(Case(self.name, title, run, needs_pids))
            return run

        return add


def processes(pid: int) -> tuple[int, ...]:
    """Return a process and all its descendants."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


async def judge(case: Case, stand: Stand) -> str | None:
    """Return the deviation of the proxy; None: it does as the case requires."""
    if case.needs_pids and not stand.pids:
        return "not measured: its processes are not known"
    stand.backend.reset()
    await asyncio.sleep(0.01)  # kept connections of the last case end
    try:
        async with asyncio.timeout(SECONDS):
            await case.run(stand)
    except TimeoutError:
        return f"nothing within {SECONDS:g} s"
    except DiffersError as error:
        return str(error)
    except (ConnectionError, asyncio.IncompleteReadError):
        return "connection ended"
    finally:
        stand.backend.reset()
    return None
