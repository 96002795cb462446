# Compiled by mypyc: see setup.py.
"""Per-connection cache of the last parsed head. No I/O.

Most connections repeat one head and change only its length. A head that equals the last one in every byte but
the digits of ``Content-Length`` has the same meaning with another length, so it is not parsed and validated a
second time.
"""

import re
from typing import Final

from proxy.relay.http.framing import Body, Chunked, Fixed
from proxy.relay.http.heads import (
    HeadError,
    Headers,
    RequestHead,
    ResponseHead,
    parse_request,
    parse_response,
)

# The first match suffices: a head with two lengths was rejected, so it is not in the cache.
_MAX_DIGITS: Final = 15
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,%d})\r\n" % _MAX_DIGITS)
_NAME: Final = b"content-length"
_MAX_BYTES: Final = 4096  # a longer head is not kept


class _Repeated:
    """The bytes of the last head: all of them, or all but the digits of its length."""

    __slots__ = ("_after", "_before", "_counted")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._counted = False

    def remember(self, raw: bytes) -> None:
        """Store a head, to compare the next ones with."""
        found = _LENGTH.search(raw)
        self._counted = found is not None
        start, end = found.span(1) if found is not None else (len(raw), len(raw))
        self._before, self._after = raw[:start], raw[end:]

    def digits(self, raw: bytes) -> bytes | None:
        """Return the digits of the length, empty without one; None if more than these differ."""
        before, after = self._before, self._after
        if not self._counted:
            return b"" if raw == before else None
        if not raw.startswith(before) or not raw.endswith(after):
            return None
        digits = raw[len(before) : len(raw) - len(after)]
        return digits if digits.isdigit() and len(digits) <= _MAX_DIGITS else None


class RequestHeadCache:
    """Parse the request heads of one connection."""

    __slots__ = ("_head", "_repeated")

    def __init__(self) -> None:
        self._repeated = _Repeated()
        self._head: RequestHead | None = None

    def parse(self, raw: bytes, max_body_bytes: int) -> RequestHead:
        """Return the same as :func:`~proxy.relay.http.heads.parse_request`."""
        last = self._head
        digits = None if last is None else self._repeated.digits(raw)
        if last is None or digits is None:
            head = parse_request(raw, max_body_bytes)
            if len(raw) <= _MAX_BYTES and not head.upgrade:
                self._repeated.remember(raw)
                self._head = head
            return head
        headers, values = _with_length(last.headers, last.values, digits)
        length = _length(values)
        if length is not None and length > max_body_bytes:
            raise HeadError(413, f"a body of {length} bytes: at most {max_body_bytes} are taken")
        body = _body(length, chunked=isinstance(last.body, Chunked))
        return RequestHead(
            last.method, last.target, headers, values, last.http11, last.keep_alive, body, length,
            upgrade=False, kept=last.kept,
        )  # fmt: skip


class ResponseHeadCache:
    """Parse the response heads of one connection."""

    __slots__ = ("_head", "_method", "_repeated")

    def __init__(self) -> None:
        self._repeated = _Repeated()
        self._method = b""
        self._head: ResponseHead | None = None

    def parse(self, raw: bytes, method: bytes) -> ResponseHead:
        """Return the same as :func:`~proxy.relay.http.heads.parse_answer`."""
        last = self._head if method == self._method else None
        digits = None if last is None else self._repeated.digits(raw)
        if last is None or digits is None:
            head = parse_response(raw, method)
            if len(raw) <= _MAX_BYTES and isinstance(head.body, Fixed | Chunked):
                self._repeated.remember(raw)
                self._head, self._method = head, method
            return head
        headers, values = _with_length(last.headers, last.values, digits)
        body = _body(_length(values), chunked=isinstance(last.body, Chunked))
        return ResponseHead(last.status, last.reason, headers, values, last.keep_alive, body)


def _with_length(
    headers: Headers, values: dict[bytes, bytes], digits: bytes
) -> tuple[Headers, dict[bytes, bytes]]:
    if not digits or values[_NAME] == digits:
        return headers, values
    return (
        [(name, digits if name.lower() == _NAME else value) for name, value in headers],
        {**values, _NAME: digits},
    )


def _length(values: dict[bytes, bytes]) -> int | None:
    value = values.get(_NAME)  # consists of digits: it was validated
    return None if value is None else int(value)


def _body(length: int | None, *, chunked: bool) -> Body | None:
    if chunked:
        return Chunked()
    return Fixed(length) if length else None
