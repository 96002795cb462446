# Compiled by mypyc: see setup.py.
"""Find the end of a message body: by length, by chunks, by the end of the connection. No I/O.

Each decoder is fed bytes, and returns their payload and how many of them belong to the body. The caller may
forward the raw bytes: malformed ones raise before they are returned.
"""

import re
from typing import Final, Protocol

MAX_LINE_BYTES: Final = 4096
MAX_EXTRA_BYTES: Final = 16_384  # extensions and trailers of one body
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")


class FramingError(ValueError):
    """A body violates the framing rules of RFC 9112."""


class Body(Protocol):
    """A decoder: ``feed`` gives (payload pieces, bytes used); ``done`` once the body is complete."""

    done: bool

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Decode bytes; raise :class:`FramingError`."""


class Fixed:
    """A body of ``Content-Length`` bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Decode bytes."""
        used = min(len(data), self._left)
        self._left -= used
        self.done = self._left == 0
        return [data if used == len(data) else data[:used]], used


class UntilClose:
    """All bytes until the connection ends: answers only."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Decode bytes."""
        return [data], len(data)


class Chunked:
    """RFC 9112, section 7.1, strictly: CRLF only, bounded extensions and trailers."""

    __slots__ = ("_after_data", "_extra", "_left", "_line", "_trailer", "done")

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._extra = 0
        self._after_data = False
        self._trailer = False
        self.done = False

    @property
    def between(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not (self._left or self._line or self._after_data or self._trailer)

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Decode bytes; raise :class:`FramingError`."""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_data = True
                continue
            end = data.find(b"\n", at)
            line = self._line + data[at : end + 1 or size]
            if len(line) > MAX_LINE_BYTES:
                raise FramingError(f"a chunk's line is longer than {MAX_LINE_BYTES} bytes")
            if end < 0:
                if self._after_data and line != b"\r":  # detected before any byte of it is forwarded
                    raise FramingError("a chunk is longer than its size line")
                self._line = line
                return pieces, size
            self._line = b""
            at = end + 1
            self._take(line)
        return pieces, at

    def _take(self, line: bytes) -> None:
        text = line[:-2]
        if not line.endswith(b"\r\n") or b"\r" in text or b"\0" in text:
            raise FramingError("a chunk's line does not end with CRLF")
        if self._after_data:
            if text:
                raise FramingError("a chunk is longer than its size line")
            self._after_data = False
        elif self._trailer:
            self._take_trailer(text)
        else:
            number, _, extension = text.partition(b";")
            if not _SIZE.fullmatch(number):
                raise FramingError("a chunk's size is not hexadecimal")
            self._count(len(extension))
            self._left = int(number, 16)
            self._trailer = self._left == 0

    def _take_trailer(self, text: bytes) -> None:
        if not text:
            self.done = True
        elif b":" not in text or text[:1] in {b" ", b"\t", b":"}:
            raise FramingError("a trailer is not NAME: VALUE")
        self._count(len(text))

    def _count(self, size: int) -> None:
        self._extra += size
        if self._extra > MAX_EXTRA_BYTES:
            raise FramingError(f"more than {MAX_EXTRA_BYTES} bytes of chunk extensions and trailers")


def chunk(data: bytes) -> bytes:
    """Return one chunk; the last chunk if ``data`` is empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)
