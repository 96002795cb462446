"""Server-sent events, incrementally: bytes in, whole events out, whatever the split.

Follows the WHATWG HTML standard, section 9.2: lines end with LF, CRLF or CR; an empty line ends an event;
``data`` lines are joined with LF; a line that begins with a colon is a comment.
"""

from typing import Final

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class EventSplitter:
    """Cuts a stream into the exact bytes of each event, its ending empty line included."""

    __slots__ = ("_rest", "_scanned")

    def __init__(self) -> None:
        self._rest = b""
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Events completed by ``data``; joined with ``rest`` they are the bytes fed, unchanged.

        Raises ``ValueError`` for an event over ``MAX_EVENT_BYTES``.
        """
        buffer = self._rest + data
        events = []
        start = 0
        while (end := _event_end(buffer, max(start, self._scanned))) > 0:
            events.append(buffer[start:end])
            start = end
            self._scanned = 0
        self._rest = buffer[start:]
        # An empty line may be split over two reads: look again from a few bytes back.
        self._scanned = max(len(self._rest) - 3, 0)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ValueError(f"event of more than {MAX_EVENT_BYTES} bytes")
        return events

    @property
    def rest(self) -> bytes:
        """Bytes of an event that is not complete."""
        return self._rest


def _event_end(buffer: bytes, start: int) -> int:
    """Where the first empty line at or after ``start`` ends; 0 for none."""
    ends = [
        found + len(mark)
        for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")
        if (found := buffer.find(mark, start)) >= 0
    ]
    return min(ends, default=0)


def data_of(event: bytes) -> bytes | None:
    """The event's data; None for one that has none (comments, retry)."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]  # the one form that engines send
    lines = [
        line[5:].removeprefix(b" ")
        for line in event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
