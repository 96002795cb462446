# Compiled by mypyc: see setup.py.
"""The fast path of a stream: forward reads that match a chunk template without parsing them.

After the parser has read an event with one token, its connection gets a :class:`StreamForwarder`. Each read
is offered to it first; a read that does not match (:func:`proxy.api.chunks.match_chunk`) goes to the parser,
which may install a new forwarder. So a chunk has one road: match, else parse.

This code runs for every token, mostly with cold CPU caches, so it is one method that touches few objects.
"""

from collections.abc import Callable

from proxy.api.chunks import ChunkTemplate, match_chunk
from proxy.clock import now_ns
from proxy.ipc import Chunk
from proxy.relay.request_meter import RequestMeter


class StreamForwarder:
    """Forward reads of one stream to its client and report one token per chunk to the meter.

    Attributes:
        last_ns: Monotonic time of the last read forwarded here, in nanoseconds; 0 before the first.
        write: Sends bytes to the client.
    """

    __slots__ = ("_key", "_link", "_prefix", "_reading", "_suffix", "last_ns", "write")

    def __init__(
        self, template: ChunkTemplate, request_meter: RequestMeter, write: Callable[[bytes], None]
    ) -> None:
        self._prefix, self._suffix = template
        self._key, self._reading, self._link = request_meter.key, request_meter.reading, request_meter.link
        self.write = write
        self.last_ns = 0

    def forward(self, data: bytes) -> bool:
        """Forward a read that begins where a chunk begins, if all of it matches the template.

        Return False, without any effect, if it does not; the caller then parses it.
        """
        tokens = match_chunk(data, self._prefix, self._suffix)
        if not tokens:
            return False
        self.last_ns = t_ns = now_ns()
        self._reading.counted += tokens
        while tokens:
            tokens -= 1
            self._link.send_chunk(Chunk(self._key, t_ns, 1))
        self.write(data)
        return True
