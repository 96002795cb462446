"""The short way of streamed chunks: reads of whole events, like the one before but for their text.

Engines send each token as one chunk of one event, and only the text differs. That is proven by comparing
bytes: the chunk's size line, all before the text, all after it, and a text that is one JSON string. Framing,
event and JSON then say what they said before: one token. Whatever does not compare is parsed.

What happens here happens for every token, mostly with cold caches: it is one function that touches little.
"""

import re
from collections.abc import Callable
from typing import Final

from proxy.clock import now_ns
from proxy.core.channel import Chunk
from proxy.relay.call import Call

# Of a choice, as engines write it. Quotes within a string are escaped: this can be nothing but a key.
_KEY: Final = re.compile(rb'"(?:content|text|reasoning_content|reasoning)":"')
_TEXT: Final = re.compile(  # RFC 8259, section 7
    rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
)
_BACKSLASH: Final = 92
_MAX_BYTES: Final = 4096  # of a chunk; longer ones are rare
_LINES: Final = {len(line) + size + 2: line for size in range(1, _MAX_BYTES) for line in (b"%x\r\n" % size,)}


class Lane:
    """Takes reads of one stream to its client; ``last_ns`` is the time of the last one."""

    __slots__ = ("_after", "_before", "_key", "_reading", "_send", "_write", "last_ns")

    def __init__(self, shape: tuple[bytes, bytes], call: Call, write: Callable[[bytes], None]) -> None:
        self._before, self._after = shape
        self._key, self._reading, self._send = call.key, call.reading, call.link.send_chunk
        self._write = write
        self.last_ns = 0

    def take(self, data: bytes) -> bool:
        """Pass on bytes that begin a chunk, if they are whole chunks of this shape; else do nothing."""
        size, after = len(data), self._after
        line = _LINES.get(size)
        tokens = 1
        if line is None or not data.startswith(line) or not data.endswith(after):
            tokens = self._count(data)
        else:
            start = len(line) + len(self._before)
            end = size - len(after)
            if start >= end or not data.startswith(self._before, len(line)):
                return False
            if data.find(b'"', start, end) >= 0 or data[end - 1] == _BACKSLASH:
                tokens = self._count(data)
        if not tokens:
            return False
        self.last_ns = t_ns = now_ns()
        self._reading.counted += tokens
        while tokens:
            tokens -= 1
            self._send(Chunk(self._key, t_ns, 1))
        self._write(data)
        return True

    def _count(self, data: bytes) -> int:
        """How many chunks of the shape the bytes are; 0: they are not, or not only."""
        before, after = self._before, self._after
        at, size, found = 0, len(data), 0
        while at < size:
            end = data.find(after, at + len(before))
            line = _LINES.get(end + len(after) - at)
            if end < 0 or line is None or not data.startswith(line, at):
                return 0
            at += len(line)
            start = at + len(before)
            if start >= end or not data.startswith(before, at) or not _TEXT.fullmatch(data, start, end):
                return 0
            at = end + len(after)
            found += 1
        return found


def shape_of(event: bytes) -> tuple[bytes, bytes] | None:
    """What stands before and after the text of an event that brought one token, up to its chunk's end.

    None for an event of which more than the text may change what it says.
    """
    if not event.startswith(b"data: {") or b'"usage":{' in event or event.find(b"\n") != len(event) - 2:
        return None
    keys = list(_KEY.finditer(event))
    if len(keys) != 1:
        return None
    start = keys[0].end()
    text = _TEXT.match(event, start)
    if text is None or text.end() == start or event[text.end() : text.end() + 1] != b'"':
        return None  # an empty text may stand for a token, or for none
    return event[:start], event[text.end() :] + b"\r\n"
