# Compiled by mypyc: see setup.py.
"""Heads of requests and responses: parsed by llhttp, validated strictly. No I/O."""

import re
from typing import Final

import httptools

from proxy.api.endpoints import Endpoint
from proxy.api.jobs import JobPath
from proxy.relay.http.framing import Body, Chunked, Fixed, UntilClose

Headers = list[tuple[bytes, bytes]]

_NO_BODY: Final[tuple[int, ...]] = (204, 304)
# RFC 9112, sections 3 to 5: llhttp also accepts two spaces, control characters, which others read differently
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS: Final = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
_REQUEST: Final = re.compile(_TOKEN + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]\r\n" + _FIELDS)
_RESPONSE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\r\n" + _FIELDS)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class HeadError(ValueError):
    """A head is rejected; ``status`` is the status of the error for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DerivedValues:
    """Values derived from a head, shared by the later requests of a connection that repeat it.

    ``lines``: those that travel on, by the names of those that do not. ``asks``: path, endpoint or None,
    whether the body can be read.
    """

    __slots__ = ("lines", "request_target")

    def __init__(self) -> None:
        self.lines: dict[frozenset[bytes], bytes] = {}
        self.request_target: tuple[str, Endpoint | None, bool, JobPath | None] | None = None


class RequestHead:
    """Head of a request; ``body`` is None if it has none.

    ``target``: origin form, as the client wrote it. ``values``: by lower-case name; what is given several
    times as one list.
    """

    __slots__ = (
        "body", "headers", "http11", "keep_alive", "kept", "length", "method", "target", "upgrade", "values",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        values: dict[bytes, bytes],
        http11: bool,
        keep_alive: bool,
        body: Body | None,
        length: int | None,
        upgrade: bool,
        kept: DerivedValues | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.values = values
        self.http11 = http11
        self.keep_alive = keep_alive
        self.body = body
        self.length = length
        self.upgrade = upgrade
        self.kept = DerivedValues() if kept is None else kept

    def text(self, name: bytes) -> str | None:
        """Return the value of a header by its lower-case name."""
        value = self.values.get(name)
        return None if value is None else value.decode("latin-1")


class ResponseHead:
    """Head of a response; ``body`` is None if it has none."""

    __slots__ = ("body", "headers", "keep_alive", "reason", "status", "values")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        values: dict[bytes, bytes],
        keep_alive: bool,
        body: Body | None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.values = values
        self.keep_alive = keep_alive
        self.body = body


class _Collector:
    def __init__(self) -> None:
        self.headers: Headers = []
        self.url = b""
        self.reason = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def parse_request(raw: bytes, max_body_bytes: int) -> RequestHead:
    """Parse a head that ends with an empty line; raise :class:`HeadError` with 400 or 413."""
    _check(raw, _REQUEST)
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise HeadError(400, f"not HTTP: {error}") from error
    values = _values(found.headers)
    version = parser.get_http_version()
    if version not in {"1.0", "1.1"}:
        raise HeadError(400, f"HTTP/{version} is not served: send HTTP/1.1")
    method = parser.get_method()
    length = _length(found.headers, values)
    if length is not None and length > max_body_bytes:
        raise HeadError(413, f"a body of {length} bytes: at most {max_body_bytes} are taken")
    body = _request_body(values, length, version)
    upgrade = (  # nothing but a WebSocket: a tunnel of h2c would be a way around this proxy
        values.get(b"upgrade", b"").lower() == b"websocket"
        and _has(values, b"connection", b"upgrade")
        and (method, version, body) == (b"GET", "1.1", None)
    )
    return RequestHead(
        method,
        _target(method, found.url, found.headers, values, version),
        found.headers,
        values,
        version == "1.1",
        _keep_alive(values, version),
        body,
        length,
        upgrade,
    )


def _request_body(values: dict[bytes, bytes], length: int | None, version: str) -> Body | None:
    coding = values.get(b"transfer-encoding")
    if coding is None:
        return Fixed(length) if length else None
    if length is not None:
        raise HeadError(400, "Content-Length and Transfer-Encoding are both given")
    if coding.lower() != b"chunked" or version == "1.0":
        raise HeadError(400, "Transfer-Encoding may only be chunked, in HTTP/1.1")
    return Chunked()


def parse_response(raw: bytes, method: bytes) -> ResponseHead:
    """Parse the head of a response to ``method``; raise :class:`HeadError` with 502."""
    found = _Collector()
    try:
        _check(raw, _RESPONSE)
        parser = httptools.HttpResponseParser(found)
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except (httptools.HttpParserError, HeadError) as error:
        raise HeadError(502, f"the backend's answer is not HTTP: {error}") from error
    values = _values(found.headers)
    status, version = parser.get_status_code(), parser.get_http_version()
    keep_alive = _keep_alive(values, version)
    coding = values.get(b"transfer-encoding")
    length = _length(found.headers, values)
    body: Body | None
    if method == b"HEAD" or status in _NO_BODY or status < 200:
        body = None
    elif coding is not None:
        if coding.lower() != b"chunked" or length is not None:
            raise HeadError(502, "the backend's answer has a Transfer-Encoding that is not understood")
        body = Chunked()
    elif length is not None:
        body = Fixed(length) if length else None
    else:
        body, keep_alive = UntilClose(), False
    return ResponseHead(status, found.reason, found.headers, values, keep_alive, body)


def _check(raw: bytes, form: re.Pattern[bytes]) -> None:
    """Reject heads that parsers are known to read differently (request smuggling)."""
    lines = raw.count(b"\r\n")
    if raw.count(b"\n") != lines or raw.count(b"\r") != lines or 0 in raw:
        raise HeadError(400, "bare CR, LF or NUL in the header section: lines end with CRLF")
    if raw.find(b"\n ") >= 0 or raw.find(b"\n\t") >= 0:
        raise HeadError(400, "a header may not go on in the next line")
    if form.fullmatch(raw) is None:
        raise HeadError(400, "not HTTP/1.1: a first line of three words, then lines NAME: VALUE (RFC 9112)")


def _values(headers: Headers) -> dict[bytes, bytes]:
    """Return headers by lower-case name; repeated ones are joined as a list (RFC 9110, section 5.3)."""
    values = {name.lower(): value for name, value in headers}
    if len(values) < len(headers):
        values.clear()
        for name, value in headers:
            key = name.lower()
            values[key] = b"%b, %b" % (values[key], value) if key in values else value
    return values


def _length(headers: Headers, values: dict[bytes, bytes]) -> int | None:
    value = values.get(b"content-length")
    if value is None:
        return None
    if len(values) < len(headers) and _count(headers, b"content-length") > 1:
        raise HeadError(400, "Content-Length is given twice")
    if not value.isdigit() or len(value) > 18:
        raise HeadError(400, "Content-Length is not a number")
    return int(value)


def _count(headers: Headers, name: bytes) -> int:
    return sum(other.lower() == name for other, _ in headers)


def _target(method: bytes, url: bytes, headers: Headers, values: dict[bytes, bytes], version: str) -> bytes:
    host = values.get(b"host")
    several = len(values) < len(headers) and _count(headers, b"host") > 1
    if several or (host is None and version == "1.1"):
        raise HeadError(400, "a request has one Host header")
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        return url
    found = _ABSOLUTE.fullmatch(url)
    if method == b"CONNECT" or found is None:
        raise HeadError(400, "the target of a request is a path, as /v1/models")
    if found[1].lower() != (host or b"").lower():
        raise HeadError(400, "the target names another host than the Host header")
    return found[2] if found[2].startswith(b"/") else b"/" + found[2]


def _has(values: dict[bytes, bytes], name: bytes, token: bytes) -> bool:
    return token in [word.strip() for word in values.get(name, b"").lower().split(b",")]


def _keep_alive(values: dict[bytes, bytes], version: str) -> bool:
    if version == "1.1":
        return b"connection" not in values or not _has(values, b"connection", b"close")
    return _has(values, b"connection", b"keep-alive")
