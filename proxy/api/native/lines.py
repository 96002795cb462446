# Compiled by mypyc: see setup.py.
"""JSON lines (``application/x-ndjson``), incrementally."""

from proxy.api.sse import MAX_EVENT_BYTES


class LineSplitter:
    """Cuts a stream into lines; same methods as :class:`proxy.api.sse.EventSplitter`."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines completed by ``data``; one over ``MAX_EVENT_BYTES`` comes in pieces."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return lines

    @property
    def rest(self) -> bytes:
        """Bytes of a line that is not complete."""
        return self._rest
