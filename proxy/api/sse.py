# Compiled by mypyc: see setup.py.
"""Server-sent events, incrementally: bytes in, whole events out, whatever the split.

Follows the WHATWG HTML standard, section 9.2: lines end with LF, CRLF or CR; an empty line ends an event;
``data`` lines are joined with LF; a line that begins with a colon is a comment.
"""

from typing import Final

DONE: Final = b"[DONE]"  # the data of the last event of a stream of chat or completions
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class EventSplitter:
    """Cuts a stream into the exact bytes of each event, its ending empty line included."""

    __slots__ = ("_rest", "_scanned")

    def __init__(self) -> None:
        self._rest = b""
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Events completed by ``data``; joined with ``rest`` they are the bytes fed, unchanged.

        An event over ``MAX_EVENT_BYTES`` comes in pieces, so that memory stays bounded; they hold no JSON.
        """
        buffer = self._rest + data if self._rest else data
        events = []
        start = 0
        while (end := _event_end(buffer, max(start, self._scanned))) > 0:
            events.append(buffer[start:end])
            start = end
            self._scanned = 0
        rest = buffer[start:] if start else buffer
        if len(rest) > MAX_EVENT_BYTES:
            events.append(rest[:-3])  # an empty line may be split: its bytes stay
            rest = rest[-3:]
        self._rest = rest
        self._scanned = max(len(rest) - 3, 0)  # an empty line may be split over two reads
        return events

    @property
    def rest(self) -> bytes:
        """Bytes of an event that is not complete."""
        return self._rest


def _event_end(buffer: bytes, start: int) -> int:
    """Where the first empty line at or after ``start`` ends; 0 for none.

    A line that ends with LF may be followed by an empty one of LF, CRLF or CR; one of CR by CR or CRLF.
    """
    first = 0
    for mark in (b"\n\n", b"\n\r", b"\r\r"):
        found = buffer.find(mark, start, first) if first else buffer.find(mark, start)
        if found >= 0:
            end = found + 2
            if mark != b"\n\n":
                if buffer[end : end + 1] == b"\n":
                    end += 1
                elif mark == b"\n\r" and end == len(buffer):
                    continue  # most likely half of CRLF
            first = end
    return first


def begins_stream(data: bytes) -> bool:
    """Return whether the first bytes of a body, one at least, are those of an event and not of JSON."""
    begin = data.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")
    return bool(begin) and any(begin.startswith(field[: len(begin)]) for field in _FIELDS)


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


def with_data(event: bytes, data: bytes) -> bytes:
    """Return the event with other data, its other fields and comments as they were."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return b"data: " + data + b"\n\n"
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n").split(b"\n")
    kept = [line for line in lines if not line.startswith(b"data:")]
    return b"\n".join((*kept, *(b"data: " + line for line in data.splitlines()), b"", b""))
