"""Timeline files on disk, plain or zstd (``.zst``): the shell around :mod:`proxy.core.timeline`."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.core.events import Event
from proxy.core.timeline import TimelineReader, encode_events
from proxy.zstd import ZstdError, ZstdFile

BLOCK_BYTES = 1 << 20


class FileError(ValueError):
    """A file cannot be read; ``str`` is ``file:line: reason`` or ``file: reason``, one line."""


def read_blocks(path: Path, reader: TimelineReader) -> Iterator[list[Event]]:
    """Lists of events, in order; a torn last line is in ``reader.torn`` at the end.

    Raises ``OSError``, :class:`FileError` (not zstd) and :class:`~proxy.core.timeline.TimelineError`.
    """
    for block in blocks(path):
        if events := reader.feed(block):
            yield events
    if events := reader.close():
        yield events


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, plain or zstd by its name; one that was cut off ends where it was.

    Raises ``OSError`` and :class:`FileError` (not zstd).
    """
    with path.open("rb") as raw:
        stream = ZstdFile(raw) if path.suffix == ".zst" else raw
        while True:
            try:
                block = stream.read1(BLOCK_BYTES)  # one that fails later would take the block with it
            except EOFError:
                return
            except ZstdError as error:
                raise FileError(f"{path}: not zstd, or damaged: {error}") from error
            if not block:
                return
            yield block


class TimelineWriter:
    """Appends events to a new file. ``flush`` puts what was written where a crash leaves it."""

    def __init__(self, path: Path) -> None:
        """Create or replace ``path``; raises ``OSError``."""
        self._raw = path.open("wb")
        self._zstd = ZstdFile(self._raw, "w", level=3) if path.suffix == ".zst" else None

    def write(self, events: list[Event]) -> None:
        """Append some events; the caller keeps them in order of ``t_ns``, the header first."""
        (self._zstd or self._raw).write(encode_events(events))

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        if self._zstd is not None:
            self._zstd.flush()
        self._raw.flush()

    def close(self) -> None:
        """End the file; a second call does nothing."""
        if self._zstd is not None:
            self._zstd.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
