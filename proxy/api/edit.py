# Compiled by mypyc: see setup.py.
"""Change one member of a JSON object and leave every other byte as it was.

Why not decode and encode: a body passes through the proxy unchanged but for what it must add, and much of
what engines accept (``NaN``, unpaired surrogates, a byte order mark, 64-bit floats as they were written) does
not survive an encoder. So the top level is scanned for the positions of its members; nested values are
skipped by matching brackets and strings, and are not validated.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

# [^"\\]* skips a string without escapes at once, megabytes of base64 for example. A quotation mark that
# begins no complete string matches last: the text ends within a string.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]|"', re.DOTALL)
_BLANK: Final = b" \t\r\n"
_EMPTY: Final = re.compile(rb"[ \t\r\n]*}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_QUOTE: Final = 0x22
_COLON: Final = 0x3A
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"
_COMMA: Final = 0x2C


class _Member:
    """Positions of a member: of its key, of its value, behind its value, without white space around."""

    __slots__ = ("end", "key", "start", "value_start")

    def __init__(self, key: str, start: int, value_start: int, end: int) -> None:
        self.key = key
        self.start = start
        self.value_start = value_start
        self.end = end


def as_utf8(data: bytes) -> bytes:
    """Return a JSON text as UTF-8.

    UTF-16 and UTF-32 are recognized as by Python's ``json``, which most engines read requests with. Anything
    else is returned as it is, a byte order mark of UTF-8 included.
    """
    if b"\0" not in data[:4] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data
    try:
        return data.decode(json.detect_encoding(data), "surrogatepass").encode("utf-8", "surrogatepass")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return data


def add_first(text: bytes, member: bytes) -> bytes | None:
    """Return the object with a member added as its first; None if ``text`` is no object.

    The caller knows that no member has that name. ``member`` is its text, as ``"name":1``.
    """
    opened = _opened(text)
    if opened is None:
        return None
    comma = b"" if _EMPTY.match(text, opened) else b","
    return b"%b%b%b%b" % (text[:opened], member, comma, text[opened:])


def replace_member(text: bytes, name: str, value: bytes) -> bytes | None:
    """Return the object with exactly one member of that name, of the given value.

    The last one of that name is replaced, others are removed, and where there is none it is added. None if
    ``text`` is no object or is malformed at its top level.
    """
    members = _members(text)
    if members is None:
        return None
    places = [index for index, member in enumerate(members) if member.key == name]
    if not places:
        return add_first(text, b"%b:%b" % (json.dumps(name).encode(), value))
    last = members[places[-1]]
    pieces = [text[last.end :], value, text[last.start : last.value_start]]  # from the end to the beginning
    end = last.start
    for index in reversed(places[:-1]):
        following = members[index + 1].start  # the comma goes with it
        pieces.append(text[following:end])
        end = members[index].start
    pieces.append(text[:end])
    return b"".join(reversed(pieces))


def members_but(text: bytes, names: frozenset[str]) -> list[bytes]:
    """Return the texts of the members that have none of these names; empty if ``text`` is no object."""
    members = _members(text) or []
    return [text[member.start : member.end] for member in members if member.key not in names]


def _opened(text: bytes) -> int | None:
    """Return the position behind the opening brace."""
    if text[:1] == b"{":  # nearly always
        return 1
    begin = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0
    while text[begin : begin + 1] in {b" ", b"\t", b"\r", b"\n"}:
        begin += 1
    return begin + 1 if text[begin : begin + 1] == b"{" else None


def _members(text: bytes) -> list[_Member] | None:
    """Return the members of a complete object in their order, repeated names included; else None."""
    opened = _opened(text)
    if opened is None:
        return None
    members: list[_Member] = []
    start, key_end, value_start = -1, -1, -1
    for at, end in _top_level(text, opened):
        byte = text[at]
        if byte == _QUOTE:
            if start < 0:
                start, key_end = at, end
        elif byte == _COLON:
            if start < 0 or value_start >= 0:
                return None
            value_start = end
        else:  # a comma or the closing brace
            if value_start >= 0:
                members.append(_member(text, start, key_end, value_start, at))
            elif byte == _COMMA or start >= 0 or members:
                return None  # nothing, or a name alone, stands before it
            if byte != _COMMA:
                return members if not text[end:].strip(_BLANK) else None
            start = value_start = -1
    return None


def _top_level(text: bytes, opened: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of strings, commas, colons and the closing bracket of the object itself.

    Ends early where the text ends within a string.
    """
    depth = 1
    for found in _TOKEN.finditer(text, opened):
        at, end = found.span()
        byte = text[at]
        if byte in _OPENING:
            depth += 1
        elif byte in _CLOSING:
            depth -= 1
            if not depth:
                yield at, end
        elif byte == _QUOTE and end - at == 1:
            return
        elif depth == 1:
            yield at, end


def _member(text: bytes, start: int, key_end: int, value_start: int, value_end: int) -> _Member:
    raw = text[value_start:value_end]
    begin = value_start + len(raw) - len(raw.lstrip(_BLANK))
    try:
        key = json.loads(text[start:key_end].decode("utf-8", "replace"), strict=False)
    except ValueError:
        key = ""
    return _Member(key, start, begin, value_start + len(raw.rstrip(_BLANK)))
