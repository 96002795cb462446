"""Heads that a connection repeats: who sends a head mostly sends it again, but for the length. No I/O.

A head that equals the last one in every byte but the digits of its ``Content-Length`` says what that one
said, with another length: it was parsed and judged once, and is not again.
"""

import re
from typing import Final

from proxy.relay.framing import Body, Chunked, Fixed
from proxy.relay.head import AnswerHead, HeadError, Headers, RequestHead, parse_answer, parse_request

# The first one; a head with two was refused, and is not the last one.
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,15})\r\n")
_NAME: Final = b"content-length"
_MAX_BYTES: Final = 4096  # a longer head is not kept


class Requests:
    """Parses the request heads of one connection."""

    __slots__ = ("_head", "_key")

    def __init__(self) -> None:
        self._key: tuple[bytes, bool] | None = None
        self._head: RequestHead | None = None

    def parse(self, raw: bytes, max_body_bytes: int) -> RequestHead:
        """As :func:`~proxy.relay.head.parse_request`."""
        key, digits = _without_length(raw)
        last = self._head
        if last is None or key != self._key:
            head = parse_request(raw, max_body_bytes)
            if len(raw) <= _MAX_BYTES and not head.upgrade:
                self._key, self._head = key, head
            return head
        headers, values = _with_length(last.headers, last.values, digits)
        length = _length(values)
        if length is not None and length > max_body_bytes:
            raise HeadError(413, f"a body of {length} bytes: at most {max_body_bytes} are taken")
        body = _body(length, chunked=isinstance(last.body, Chunked))
        return RequestHead(
            last.method, last.target, headers, values, last.http11, last.keep_alive, body, length,
            upgrade=False, sent=last.sent,
        )  # fmt: skip


class Answers:
    """Parses the answer heads of one connection."""

    __slots__ = ("_head", "_key")

    def __init__(self) -> None:
        self._key: tuple[tuple[bytes, bool], bytes] | None = None
        self._head: AnswerHead | None = None

    def parse(self, raw: bytes, method: bytes) -> AnswerHead:
        """As :func:`~proxy.relay.head.parse_answer`."""
        key, digits = _without_length(raw)
        last = self._head
        if last is None or (key, method) != self._key:
            head = parse_answer(raw, method)
            if len(raw) <= _MAX_BYTES and isinstance(head.body, Fixed | Chunked):
                self._key, self._head = (key, method), head
            return head
        headers, values = _with_length(last.headers, last.values, digits)
        body = _body(_length(values), chunked=isinstance(last.body, Chunked))
        return AnswerHead(last.status, last.reason, headers, values, last.keep_alive, body)


def _without_length(raw: bytes) -> tuple[tuple[bytes, bool], bytes]:
    """What must be equal, and the digits of the length; empty where they are a part of what must be equal."""
    found = _LENGTH.search(raw)
    if found is None:
        return (raw, False), b""
    start, end = found.span(1)
    return (raw[:start] + raw[end:], True), raw[start:end]


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
    value = values.get(_NAME)  # digits: it was judged, however it is written
    return None if value is None else int(value)


def _body(length: int | None, *, chunked: bool) -> Body | None:
    if chunked:
        return Chunked()
    return Fixed(length) if length else None
