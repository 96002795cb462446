"""Read a complete JSON response of any size in bounded memory.

How it works: a body is gathered and decoded at its end, which is fastest. One that grows over
``MAX_GATHERED_BYTES`` (images as base64, embeddings of a batch, logprobs) is scanned piece by piece
instead: the values of the fields that are read are kept, items of ``data`` are counted, all else is dropped
as it comes. Usage may stand anywhere in it.
"""

from typing import Final

import msgspec

from proxy.api.fields import RESPONSE, ResponseBody
from proxy.api.scan import Scanner

MAX_GATHERED_BYTES: Final = 4 * 1024 * 1024
_COUNTED: Final = frozenset((b"data",))
_WANTED: Final = frozenset(name.encode() for name in ResponseBody.__struct_fields__) - _COUNTED


class BodyReader:
    """Feed the body's bytes, then call ``finish`` once."""

    def __init__(self, names: frozenset[bytes] = frozenset()) -> None:
        """``names``: members that are kept besides those of :class:`ResponseBody`."""
        self._wanted = _WANTED | names
        self._pieces: list[bytes] = []
        self._size = 0
        self._scanner: Scanner | None = None

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body."""
        if self._scanner is not None:
            self._scanner.feed(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_GATHERED_BYTES:
            self._scanner = Scanner(self._wanted, _COUNTED, max_value_bytes=MAX_GATHERED_BYTES)
            for piece in self._pieces:
                self._scanner.feed(piece)
            self._pieces = []

    def document(self) -> bytes:
        """Return the body; of one that was scanned, an object of the members that were kept."""
        scanner = self._scanner
        if scanner is None:
            return b"".join(self._pieces)
        return b"{%b}" % b",".join(b'"%b":%b' % member for member in scanner.members.items())

    def finish(self, unread: list[str]) -> tuple[ResponseBody | None, int | None]:
        """Return the fields of the response, and the number of items in its ``data``.

        The first is None where the body is no JSON object, the second where there is no ``data``. Names of
        fields that could not be read, or were too long to keep, are appended to ``unread``.
        """
        scanner = self._scanner
        if scanner is None:
            body = RESPONSE.decode(b"".join(self._pieces), unread)
            items = _count(body.data) if body is not None else None
            return body, items
        if not scanner.members and not scanner.counts:
            unread.append("body")
            return None, None
        unread.extend(sorted(name.decode() for name in scanner.too_long))
        return RESPONSE.from_members(scanner.members, unread), scanner.counts.get(b"data")


def _count(items: list[msgspec.Raw] | None) -> int | None:
    return None if items is None else sum(bytes(item) != b"null" for item in items)
