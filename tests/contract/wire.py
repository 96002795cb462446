"""Reading HTTP/1.1 from raw sockets, forgivingly: a case judges what it finds, this only finds it."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

END: Final = b"\r\n\r\n"
LIMIT: Final = 1 << 20  # of a head
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(slots=True)
class Head:
    """A head: its first line, its fields in order."""

    raw: bytes
    line: bytes
    fields: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, by its lower-case name."""
        return [value for key, value in self.fields if key.lower() == name]

    def value(self, name: bytes) -> bytes:
        """All values as one list; empty where there is none."""
        return b", ".join(self.values(name))

    @property
    def status(self) -> int:
        """Of an answer; 0 where its first line has none."""
        found = _STATUS.match(self.line)
        return int(found[1]) if found else 0


def parse_head(raw: bytes) -> Head:
    """Parse a head that ends with an empty line."""
    line, *lines = raw[: -len(END)].split(b"\r\n")
    pairs = [item.partition(b":") for item in lines]
    return Head(raw, line, [(name, value.strip()) for name, _, value in pairs])


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Return the next head; raises ``IncompleteReadError`` if the connection ends first."""
    return parse_head(await reader.readuntil(END))


async def pieces(reader: asyncio.StreamReader, head: Head, *, closes: bool) -> AsyncIterator[bytes]:
    """Yield the body's bytes as received, chunks with their framing.

    ``closes``: without a length the body ends with the connection. Raises ``IncompleteReadError``.
    """
    if b"chunked" in head.value(b"transfer-encoding").lower():
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                yield line + await _trailers(reader)
                return
            yield line + await reader.readexactly(size + 2)
    elif length := head.value(b"content-length"):
        left = int(length)
        while left:
            data = await reader.read(min(left, 1 << 16))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(data)
            yield data
    elif closes:
        while data := await reader.read(1 << 16):
            yield data


async def _trailers(reader: asyncio.StreamReader) -> bytes:
    lines = b""
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines += line
    return lines + line


def payload(piece: bytes) -> bytes:
    """Return the data of one chunk with its framing."""
    line, _, rest = piece.partition(b"\r\n")
    return b"" if int(line.partition(b";")[0], 16) == 0 else rest[:-2]


@dataclass(slots=True)
class Answer:
    """An answer as a client saw it; ``whole`` False: the connection broke within it."""

    head: Head
    interim: list[Head] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)  # as :func:`pieces` gives them
    whole: bool = True

    @property
    def status(self) -> int:
        """Its status."""
        return self.head.status

    @property
    def body(self) -> bytes:
        """Without framing."""
        if b"chunked" in self.head.value(b"transfer-encoding").lower():
            return b"".join(map(payload, self.raw))
        return b"".join(self.raw)

    @property
    def trailers(self) -> bytes:
        """The lines after the last chunk."""
        return self.raw[-1].partition(b"\r\n")[2] if self.raw else b""


async def read_answer(reader: asyncio.StreamReader, method: bytes = b"GET") -> Answer:
    """Return the next final response, with the interim ones before it."""
    interim = []
    while 100 <= (head := await read_head(reader)).status < 200 and head.status != 101:
        interim.append(head)
    answer = Answer(head, interim)
    if method == b"HEAD" or head.status in {101, 204, 304}:
        return answer
    try:
        async for piece in pieces(reader, head, closes=True):
            answer.raw.append(piece)
    except (asyncio.IncompleteReadError, ConnectionError):
        answer.whole = False
    return answer
