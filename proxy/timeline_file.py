"""Timeline files on disk, plain or zstd (``.zst``): the shell around :mod:`proxy.core.timeline`."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import zstandard

from proxy.core.events import Event
from proxy.core.timeline import TimelineReader, encode_events

BLOCK_BYTES = 1 << 20


class FileError(ValueError):
    """A file cannot be read; ``str`` is ``file:line: reason`` or ``file: reason``, one line."""


def read_blocks(path: Path, reader: TimelineReader) -> Iterator[list[Event]]:
    """Lists of events, in order; a torn last line is in ``reader.torn`` at the end.

    Raises ``OSError``, :class:`FileError` (not zstd) and :class:`~proxy.core.timeline.TimelineError`.
    """
    with path.open("rb") as raw:
        stream: IO[bytes] = raw
        if path.suffix == ".zst":
            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        while True:
            try:
                block = stream.read(BLOCK_BYTES)
            except zstandard.ZstdError as error:
                raise FileError(f"{path}: not zstd, or damaged: {error}") from error
            if not block:
                break
            if events := reader.feed(block):
                yield events
    if events := reader.close():
        yield events


class TimelineWriter:
    """Appends events to a new file. ``flush`` puts what was written where a crash leaves it."""

    def __init__(self, path: Path) -> None:
        """Create or replace ``path``; raises ``OSError``."""
        self._raw = path.open("wb")
        self._zstd = (
            zstandard.ZstdCompressor(level=3).stream_writer(self._raw) if path.suffix == ".zst" else None
        )

    def write(self, events: list[Event]) -> None:
        """Append some events; the caller keeps them in order of ``t_ns``, the header first."""
        (self._zstd or self._raw).write(encode_events(events))

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        if self._zstd is not None:
            self._zstd.flush(zstandard.FLUSH_BLOCK)
        self._raw.flush()

    def close(self) -> None:
        """End the file; a second call does nothing."""
        if self._zstd is not None and not self._raw.closed:
            self._zstd.flush(zstandard.FLUSH_FRAME)
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
