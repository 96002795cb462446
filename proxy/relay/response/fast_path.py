# Compiled by mypyc: see setup.py.
"""The short way of streamed chunks: reads of whole events, like the one before but for their text.

Such reads are known by comparing bytes (:mod:`proxy.api.chunks`); whatever does not compare is parsed.

What happens here happens for every token, mostly with cold caches: it is one function that touches little.
"""

from collections.abc import Callable

from proxy.api.chunks import BACKSLASH, LINES, count
from proxy.clock import now_ns
from proxy.ipc import Chunk
from proxy.relay.request_meter import Call


class Lane:
    """Forward reads of one stream to its client and report one token per chunk to the meter.

    Attributes:
        last_ns: monotonic time of the last chunk forwarded here, in nanoseconds; 0 before the first.
    """

    __slots__ = ("_after", "_before", "_key", "_link", "_reading", "last_ns", "write")

    def __init__(self, shape: tuple[bytes, bytes], call: Call, write: Callable[[bytes], None]) -> None:
        self._before, self._after = shape
        self._key, self._reading, self._link = call.key, call.reading, call.link
        self.write = write
        self.last_ns = 0

    def take(self, data: bytes) -> bool:
        """Pass on bytes that begin a chunk, if they are whole chunks of this shape; else do nothing."""
        size, after = len(data), self._after
        line = LINES.get(size)
        tokens = 1
        if line is None or not data.startswith(line) or not data.endswith(after):
            tokens = count(data, self._before, after)
        else:
            start = len(line) + len(self._before)
            end = size - len(after)
            if start >= end or not data.startswith(self._before, len(line)):
                return False
            if data.find(b'"', start, end) >= 0 or data[end - 1] == BACKSLASH:
                tokens = count(data, self._before, after)
        if not tokens:
            return False
        self.last_ns = t_ns = now_ns()
        self._reading.counted += tokens
        while tokens:
            tokens -= 1
            self._link.send_chunk(Chunk(self._key, t_ns, 1))
        self.write(data)
        return True
