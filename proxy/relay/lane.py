"""The short way of streamed chunks: reads of whole events, like the one before but for their text.

Such reads are known by comparing bytes (:mod:`proxy.chunks`); whatever does not compare is parsed.

What happens here happens for every token, mostly with cold caches: it is one function that touches little.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.chunks import BACKSLASH, LINES, count
from proxy.clock import now_ns
from proxy.core.channel import Chunk
from proxy.relay.call import Call
from proxy.relay.pump import Pump

if TYPE_CHECKING:
    from proxy.relay.pumping import Stream


class Lane:
    """Takes reads of one stream to its client, or leaves that to a pump."""

    __slots__ = (
        "_after", "_before", "_key", "_last_ns", "_link", "_reading", "stream", "taken", "target", "write",
    )  # fmt: skip

    def __init__(
        self,
        shape: tuple[bytes, bytes],
        call: Call,
        write: Callable[[bytes], None],
        target: Callable[[], int | None],
    ) -> None:
        """``target``: the descriptor that ``write`` writes to, if a pump may."""
        self._before, self._after = shape
        self._key, self._reading, self._link = call.key, call.reading, call.link
        self.write, self.target = write, target
        self.taken = 0  # reads
        self._last_ns = 0
        self.stream: Stream | None = None  # on a pump

    @property
    def last_ns(self) -> int:
        """When the last chunk came."""
        return self._last_ns if self.stream is None else max(self._last_ns, self.stream.last_ns)

    def between(self, pump: Pump, source: int, target: int) -> "Stream":
        """For the pump: the same chunks from one descriptor to another."""
        stream = pump.stream(source, target, self._before, self._after, self._key)
        self.stream = self._reading.passing = stream
        return stream

    def off(self) -> None:
        """The pump has it no more."""
        self._last_ns = self.last_ns
        self.stream = None
        self._reading.passed()

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
        self._last_ns = t_ns = now_ns()
        self._reading.add(tokens)
        while tokens:
            tokens -= 1
            self._link.send_chunk(Chunk(self._key, t_ns, 1))
        self.write(data)
        self.taken += 1
        return True
