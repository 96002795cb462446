# Compiled by mypyc: see setup.py.
"""Match HTTP chunks that differ from an earlier one in their generated text only. Pure.

For the relay and for the load generator, which both would parse every chunk otherwise.

How it works: engines send each token as one chunk (RFC 9112, section 7.1) that holds one server-sent event,
and in a stream only the text of these events differs. :func:`template_of` receives an event that was parsed
and had one token; everything before its text is the prefix, everything after it the suffix.
:func:`match_chunk` compares bytes: the size line of the chunk, the prefix, the suffix, and that the text
between them is one complete JSON string. Equal bytes parse equally, so framing, event and JSON need not be
parsed again: the chunk is one token.

Why not a faster parser: the comparison is a few ``memcmp`` calls, and it cannot disagree with the parser.
"""

import re
from typing import Final

# A template: the bytes before the text of an event, the bytes after it up to the end of its chunk.
ChunkTemplate = tuple[bytes, bytes]

# Keys of the text in a choice, as engines write them. Quotes within a string are escaped, so that these bytes
# can be nothing but a key.
_KEY: Final = re.compile(rb'"(?:content|text|reasoning_content|reasoning)":"')
_TEXT: Final = re.compile(  # the inside of a string: RFC 8259, section 7
    rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
)
_MAX_BYTES: Final = 4096  # longest chunk that is matched; a token's chunk usually has a few hundred bytes
_BACKSLASH: Final = 92

# Size line of a complete chunk by the number of all its bytes: size line, content and the last CRLF.
LINES: Final = {len(line) + size + 2: line for size in range(1, _MAX_BYTES) for line in (b"%x\r\n" % size,)}


def template_of(event: bytes) -> ChunkTemplate | None:
    """Return the template for chunks like the one that held ``event``, which was parsed and had one token.

    None where more than the text may change the meaning of such an event: usage, several texts, another
    layout than ``data: {...}`` on one line, or an empty text, which may or may not stand for a token.
    """
    if not event.startswith(b"data: {") or b'"usage":{' in event or event.find(b"\n") != len(event) - 2:
        return None
    keys = list(_KEY.finditer(event))
    if len(keys) != 1:
        return None
    start = keys[0].end()
    text = _TEXT.match(event, start)
    if text is None or text.end() == start or event[text.end() : text.end() + 1] != b'"':
        return None
    return event[:start], event[text.end() :] + b"\r\n"


def event_in(data: bytes) -> bytes | None:
    """Return the content of ``data`` if it is exactly one chunk without extensions, else None."""
    line = LINES.get(len(data))
    if line is None or not data.startswith(line) or not data.endswith(b"\r\n"):
        return None
    return data[len(line) : -2]


def match_chunk(data: bytes, prefix: bytes, suffix: bytes) -> int:
    """Return how many chunks ``data`` is, each of them prefix, non-empty text and suffix.

    ``data`` must begin where a chunk begins. 0 if any part of it does not match: then all of it has to be
    parsed. The usual read is one chunk whose text has no escapes; it is decided here without a loop.
    """
    size = len(data)
    line = LINES.get(size)
    if line is None or not data.startswith(line) or not data.endswith(suffix):
        return _match_chunks(data, prefix, suffix)
    start, end = len(line) + len(prefix), size - len(suffix)
    if start >= end or not data.startswith(prefix, len(line)):
        return 0
    if data.find(b'"', start, end) >= 0 or data[end - 1] == _BACKSLASH:
        return _match_chunks(data, prefix, suffix)  # escapes, or several chunks
    return 1


def _match_chunks(data: bytes, prefix: bytes, suffix: bytes) -> int:
    """Return the same as :func:`match_chunk`, for several chunks and for texts with escapes."""
    at, size, found = 0, len(data), 0
    while at < size:
        end = data.find(suffix, at + len(prefix))
        line = LINES.get(end + len(suffix) - at)
        if end < 0 or line is None or not data.startswith(line, at):
            return 0
        at += len(line)
        start = at + len(prefix)
        if start >= end or not data.startswith(prefix, at) or not _TEXT.fullmatch(data, start, end):
            return 0
        at = end + len(suffix)
        found += 1
    return found
