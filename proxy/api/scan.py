"""Find the members of a JSON object, or the items of an array, without parsing their values.

How it works: a regular expression skips to the next structural byte (quote, bracket and, at the top level,
comma and colon); strings are skipped by a second one. Only the depth of nesting is tracked, not which
bracket opened it, so there is no recursion and no stack: a thousand nested arrays, ``NaN``, an unpaired
surrogate or a control character in a value that nobody asked for are all skipped. Values are returned as
raw bytes, for the caller to interpret.

Why not a JSON parser: a parser rejects the whole document for one value that it cannot represent, needs all
of the document in memory, and recurses. This scanner accepts what is almost JSON on purpose; it never
decides whether a document is valid.

Data may be fed in pieces of any size; memory is bounded by ``max_value_bytes`` for each wanted member.
"""

import re
from typing import Final

_FIRST: Final = re.compile(rb"[^ \t\r\n\xef\xbb\xbf]")  # after white space and a byte order mark
_TOP: Final = re.compile(rb'[",:]|[\[{]+|[\]}]+')
_NESTED: Final = re.compile(rb'"|[\[{]+|[\]}]+')
_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
_COLON: Final = 0x3A
_OPENING: Final = b"[{"
_MAX_KEY_BYTES: Final = 256  # every field that is read has a shorter name

# Structural bytes examined per document, about a second of work. A document over it is hostile, or of no
# API: one of 64 MiB with four million brackets. Members found until then are kept.
_MAX_STEPS: Final = 4_000_000

_KEY, _AFTER_KEY, _VALUE, _BEFORE, _END = range(5)  # what is expected at the top level


class Scanner:
    """Incremental scanner of one JSON object or, with ``array=True``, of one array.

    Args:
        wanted: Names of the members whose raw values are collected; None for all of them.
        counted: Names of members that are arrays: their objects, arrays and strings are counted and not
            collected.
        array: The document is an array; its items are collected in ``items``.
        max_value_bytes: Longest value that is collected; a longer one is named in ``too_long``. None: no
            limit.

    After the last ``feed``, ``members`` (last of duplicates wins), ``counts``, ``items`` hold what was found;
    ``spans`` are offsets of each collected member: where its name begins, its value begins, its value ends;
    ``complete`` says whether the end of the document was seen.
    """

    __slots__ = (
        "_array", "_counted", "_counting", "_depth", "_escaped", "_in_string", "_key", "_key_start",
        "_max_value_bytes", "_offset", "_parts", "_parts_bytes", "_start", "_state", "_steps", "_value_start",
        "_wanted", "complete", "counts", "items", "members", "spans", "too_long",
    )  # fmt: skip

    def __init__(
        self,
        wanted: frozenset[bytes] | None = None,
        counted: frozenset[bytes] = frozenset(),
        *,
        array: bool = False,
        max_value_bytes: int | None = None,
    ) -> None:
        self._wanted = wanted
        self._counted = counted
        self._array = array
        self._max_value_bytes = max_value_bytes
        self._state = _BEFORE
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte of the piece before was a backslash
        self._key = b""
        self._start = -1  # of what is collected, in the current piece; -1: nothing is
        self._parts: list[bytes] = []  # of what is collected, from pieces before
        self._parts_bytes = 0
        self._counting = False
        self._steps = 0
        self._offset = 0  # of the current piece in the document
        self._key_start = self._value_start = 0  # offsets in the document
        self.members: dict[bytes, bytes] = {}
        self.counts: dict[bytes, int] = {}
        self.items: list[bytes] = []
        self.spans: dict[bytes, tuple[int, int, int]] = {}
        self.too_long: set[bytes] = set()
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Scan the next piece of the document."""
        at, size = 0, len(data)
        while at < size and self._state != _END:
            if self._in_string:
                at = self._skip_string(data, at)
                continue
            if self._state == _BEFORE:
                at = self._open(data, at)
                continue
            found = (_NESTED if self._depth > 1 else _TOP).search(data, at)
            if found is None:
                break
            self._steps += 1
            if self._steps > _MAX_STEPS:
                self._state = _END
                break
            at = self._structural(data, found.start(), found.end())
        self._keep(data)
        self._offset += size

    def _open(self, data: bytes, at: int) -> int:
        found = _FIRST.search(data, at)
        if found is None:
            return len(data)
        at = found.start()
        if data[at : at + 1] != (b"[" if self._array else b"{"):
            self._state = _END
            return at
        self._depth = 1
        self._state = _KEY
        if self._array:
            self._begin_value(at + 1)
        return at + 1

    def _structural(self, data: bytes, at: int, end: int) -> int:
        """Process structural bytes data[at:end]; return where to continue."""
        byte = data[at]
        if byte == _QUOTE:
            self._in_string = True
            if self._depth == 1 and self._state == _KEY:
                self._start = end
                self._key_start = self._offset + at
            elif self._counting and self._depth == 2:
                self.counts[self._key] += 1
        elif byte in _OPENING:
            nested = self._depth == 2
            if (
                self._depth == 1
                and self._state == _VALUE
                and self._key in self._counted
                and byte == _OPENING[0]
            ):
                self._counting = True
                self.counts[self._key] = 0
                nested = end - at > 1
            if self._counting and nested:
                self.counts[self._key] += 1
            self._depth += end - at
        elif byte == _COMMA:
            self._end_value(data, at)
            if self._array:
                self._begin_value(end)
            else:
                self._state = _KEY
        elif byte == _COLON:
            if self._state == _AFTER_KEY:
                self._begin_value(end)
        elif end - at >= self._depth:
            self._end_value(data, at + self._depth - 1)
            self._state = _END
            self.complete = True
        else:
            self._depth -= end - at
            self._counting = self._counting and self._depth > 1
        return end

    def _skip_string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            at += 1
        found = _STRING_REST.match(data, at)
        end = found.end() if found is not None else at
        if end >= len(data):
            return len(data)
        if data[end] != _QUOTE:  # a backslash that ends the piece
            self._escaped = True
            return len(data)
        self._in_string = False
        if self._depth == 1 and self._state == _KEY:
            self._key = b"".join((*self._parts, data[self._start : end]))
            if b"\\" in self._key:
                self._key = _unescaped(self._key)
            self._forget()
            self._state = _AFTER_KEY
        return end + 1

    def _begin_value(self, start: int) -> None:
        self._state = _VALUE
        self._value_start = self._offset + start
        if self._array or (
            (self._wanted is None or self._key in self._wanted) and self._key not in self._counted
        ):
            self._start = start

    def _end_value(self, data: bytes, end: int) -> None:
        if self._state == _VALUE and self._start >= 0:
            value = b"".join((*self._parts, data[self._start : end])).strip()
            if self._max_value_bytes is not None and len(value) > self._max_value_bytes:
                self._give_up_value()
            elif self._array:
                if value:
                    self.items.append(value)
            else:
                self.members.pop(self._key, None)
                self.members[self._key] = value
                self.spans[self._key] = (self._key_start, self._value_start, self._offset + end)
        self._forget()

    def _keep(self, data: bytes) -> None:
        """Keep what is being collected of a piece whose end was reached."""
        if self._start < 0:
            return
        part = data[self._start :]
        self._start = 0
        self._parts.append(part)
        self._parts_bytes += len(part)
        if self._state == _KEY:
            if self._parts_bytes > _MAX_KEY_BYTES:
                self._parts = [b"\0"]  # no name of a field
        elif self._max_value_bytes is not None and self._parts_bytes > self._max_value_bytes:
            self._give_up_value()

    def _give_up_value(self) -> None:
        self.too_long.add(self._key)
        self._forget()

    def _forget(self) -> None:
        self._start = -1
        if self._parts:
            self._parts = []
            self._parts_bytes = 0


def _unescaped(key: bytes) -> bytes:
    """Resolve the ASCII escapes of a member's name; no field that is read has other characters."""
    return re.sub(rb"\\u00([0-7][0-9a-fA-F])", lambda found: bytes((int(found[1], 16),)), key)


def members(data: bytes) -> dict[bytes, bytes] | None:
    """Return the raw values of a JSON object by name, as far as complete; None if it is no object."""
    scanner = Scanner()
    scanner.feed(data)
    return scanner.members if scanner.members or scanner.complete else None


def items(data: bytes) -> list[bytes] | None:
    """Return the raw items of a JSON array, as far as they are complete; None if it is no array."""
    scanner = Scanner(array=True)
    scanner.feed(data)
    return scanner.items if scanner.items or scanner.complete else None
