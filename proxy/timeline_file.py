"""Read and write files of JSON lines, plain, zstd or gzip; :mod:`proxy.core.timeline` has the format."""

import gzip
import zlib
from collections.abc import Generator, Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from proxy.core.events import Event
from proxy.core.timeline import TimelineReader, encode_events
from proxy.zstd import ZstdError, ZstdFile

BLOCK_BYTES: Final = 1 << 20  # read at once
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class FileError(ValueError):
    """A file cannot be read; the message is one line, ``file:line: reason`` or ``file: reason``."""


def read_blocks(path: Path, reader: TimelineReader) -> Iterator[list[Event]]:
    """Yield lists of events, in the order of the file.

    Args:
        path: The file.
        reader: Decodes the events; at the end its ``torn`` is the number of an incomplete last line, or None.

    Raises:
        OSError: if the file cannot be read.
        FileError: if it is damaged or UTF-16.
        TimelineError: for an invalid line.
    """
    for block in blocks(path):
        if events := reader.feed(block):
            yield events
    if events := reader.close():
        yield events


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a text file, whose compression (none, zstd, gzip) is detected by its first bytes.

    A truncated compressed file ends where it was cut off. A byte order mark is skipped. Raises ``OSError``,
    and :class:`FileError` if the file is damaged or UTF-16.
    """
    with path.open("rb") as raw:
        head = raw.read(len(_ZSTD_MAGIC))
        raw.seek(0)
        stream, kind = _opened(raw, head, path)
        first = True
        while True:
            try:
                # read1, because a read() that fails would also lose the data decompressed before the error.
                block = stream.read1(BLOCK_BYTES)
            except EOFError:
                return
            except (ZstdError, gzip.BadGzipFile, zlib.error) as error:
                raise FileError(f"{path}: not {kind}, or damaged: {error}") from error
            if not block:
                return
            if first:
                first = False
                if block.startswith(_UTF16_MARKS):
                    raise FileError(f"{path}: is UTF-16 text: save it as UTF-8")
                block = block.removeprefix(_UTF8_MARK)
            yield block


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def _opened(raw: BufferedReader, head: bytes, path: Path) -> tuple[_Stream, str]:
    """Return the decompressed stream and the name of the compression."""
    if head == _ZSTD_MAGIC or path.suffix == ".zst":
        return ZstdFile(raw), "zstd"
    if head.startswith(_GZIP_MAGIC):
        return gzip.GzipFile(fileobj=raw), "gzip"
    return raw, "plain"


def lines(path: Path) -> Generator[bytes, None, None]:
    """Yield the lines of a file that :func:`blocks` reads, without line ends; the last may be incomplete."""
    rest = b""
    for block in blocks(path):
        *complete, rest = (rest + block).split(b"\n")
        yield from complete
    if rest:
        yield rest


class TimelineWriter:
    """Writes events to a new file, compressed if its name ends in ``.zst``; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Create or replace ``path``; raises ``OSError``."""
        self._raw = path.open("wb")
        self._zstd = ZstdFile(self._raw, "w", level=3) if path.suffix == ".zst" else None

    def write(self, events: list[Event]) -> None:
        """Append some events; the caller keeps them in order of ``t_ns``, the header first."""
        (self._zstd or self._raw).write(encode_events(events))

    def flush(self) -> None:
        """Pass everything written so far to the operating system; it then survives a crash of the process."""
        if self._zstd is not None:
            self._zstd.flush()
        self._raw.flush()

    def close(self) -> None:
        """Complete and close the file; a second call does nothing."""
        if self._zstd is not None:
            self._zstd.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
