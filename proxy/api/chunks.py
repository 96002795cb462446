# Compiled by mypyc: see setup.py.
"""Chunks of a stream that are alike but for their text. Pure; for the relay and for the load generator.

Engines send each token as one chunk (RFC 9112, section 7.1) of one server-sent event, and only the text
differs. That is proven by comparing bytes: the chunk's size line, all before the text, all after it, and a
text that is one JSON string. Framing, event and JSON then say what they said before: one token.
"""

import re
from typing import Final

# Of a choice, as engines write it. Quotes within a string are escaped: this can be nothing but a key.
_KEY: Final = re.compile(rb'"(?:content|text|reasoning_content|reasoning)":"')
_TEXT: Final = re.compile(  # RFC 8259, section 7
    rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
)
_MAX_BYTES: Final = 4096  # of a chunk; longer ones are rare
BACKSLASH: Final = 92

# The size line of a whole chunk, by the number of all its bytes: line, content and the last CRLF.
LINES: Final = {len(line) + size + 2: line for size in range(1, _MAX_BYTES) for line in (b"%x\r\n" % size,)}


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


def event_in(data: bytes) -> bytes | None:
    """The content of bytes that are one whole chunk without extensions; None for others."""
    line = LINES.get(len(data))
    if line is None or not data.startswith(line) or not data.endswith(b"\r\n"):
        return None
    return data[len(line) : -2]


def count(data: bytes, before: bytes, after: bytes) -> int:
    """How many chunks of a shape the bytes are; 0: they are not, or not only."""
    at, size, found = 0, len(data), 0
    while at < size:
        end = data.find(after, at + len(before))
        line = LINES.get(end + len(after) - at)
        if end < 0 or line is None or not data.startswith(line, at):
            return 0
        at += len(line)
        start = at + len(before)
        if start >= end or not data.startswith(before, at) or not _TEXT.fullmatch(data, start, end):
            return 0
        at = end + len(after)
        found += 1
    return found
