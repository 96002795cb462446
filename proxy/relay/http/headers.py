# Compiled by mypyc: see setup.py.
"""Header sections to send on: which fields are removed, and which the proxy adds."""

from typing import Final

from proxy.relay.http.heads import Headers, RequestHead, ResponseHead
from proxy.relay.http.trace_context import TRACEPARENT, Trace
from proxy.schema import ENERGY_HEADER, REQUEST_ID_HEADER

_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
_REQUEST_ID: Final = REQUEST_ID_HEADER.lower().encode()
_REPLACED: Final = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-forwarded-for",
    ENERGY_HEADER.lower().encode(),
    _REQUEST_ID,
}
_TRACEPARENT: Final = TRACEPARENT.encode()
_TRACED: Final = _REPLACED | {_TRACEPARENT}
_OWN_RESPONSE_REMOVED: Final = _HOP_BY_HOP | {_REQUEST_ID}


def _kept(headers: Headers, connection: bytes | None, gone: frozenset[bytes]) -> list[bytes]:
    """Return the lines of forwarded headers in order and case, without those ``Connection`` names."""
    if connection:
        gone = gone | {name.strip() for name in connection.lower().split(b",")}
    return [b"%b: %b\r\n" % (name, value) for name, value in headers if name.lower() not in gone]


def for_backend(
    head: RequestHead,
    host: bytes,
    request_id: str,
    trace: Trace | None,
    client: str,
    scheme: bytes,
    *,
    length: int | None,
    identity: bool,
    prefix: bytes = b"",
) -> bytes:
    """Return the request head for a backend. ``length``: of the body; None if chunked or absent.

    ``identity``: the response must be readable because it is edited, so compression is not offered.
    """
    gone = _REPLACED
    added = [
        b"%b %b%b HTTP/1.1\r\nHost: %b\r\n" % (head.method, prefix, head.target, host),
        b"%b: %b\r\n" % (_REQUEST_ID, request_id.encode("latin-1")),
    ]
    if trace is not None:
        gone = _TRACED
        added.append(b"%b: %b\r\n" % (_TRACEPARENT, trace.traceparent.encode()))
    if identity:
        gone |= {b"accept-encoding"}
        added.append(b"Accept-Encoding: identity\r\n")
    if client:
        before = head.values.get(b"x-forwarded-for")
        chain = (before + b", " if before else b"") + client.encode()
        added.append(b"X-Forwarded-For: %b\r\n" % chain)
    before = head.values.get(b"host")
    if before and b"x-forwarded-host" not in head.values:
        added.append(b"x-forwarded-host: %b\r\n" % before)
    if b"x-forwarded-proto" not in head.values:
        added.append(b"x-forwarded-proto: %b\r\n" % scheme)
    if length is not None:
        added.append(b"Content-Length: %d\r\n" % length)
    elif head.body is not None:
        added.append(b"Transfer-Encoding: chunked\r\n")
    if head.upgrade:
        added.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.values[b"upgrade"])
    kept = head.kept.lines.get(gone)
    if kept is None:
        kept = b"".join(_kept(head.headers, head.values.get(b"connection"), gone))
        head.kept.lines[gone] = kept
    added.append(b"%bVia: 1.1 jouleproxy\r\n\r\n" % kept)
    return b"".join(added)


def interim(head: ResponseHead) -> bytes:
    """Return an interim head (such as 103) for the client."""
    lines = _kept(head.headers, head.values.get(b"connection"), _HOP_BY_HOP)
    return b"".join((b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason), *lines, b"\r\n"))


def for_client(
    head: ResponseHead,
    request_id: str,
    *,
    ours: bool,
    framing: bytes,
    keep_length: bool,
    keep_coding: bool = True,
) -> bytes:
    """Return the response head for a client. ``ours``: replace the request id, the key of energy records.

    ``keep_coding`` false: the body was decompressed, so its ``Content-Encoding`` is left out.

    ``framing`` holds complete header lines: transfer coding, length, connection.
    """
    gone = _OWN_RESPONSE_REMOVED if ours else _HOP_BY_HOP
    if not keep_length:
        gone |= {b"content-length"}
    if not keep_coding:
        gone |= {b"content-encoding"}
    lines = _kept(head.headers, head.values.get(b"connection"), gone)
    if ours or _REQUEST_ID not in head.values:
        lines.append(b"%b: %b\r\n" % (_REQUEST_ID, request_id.encode("latin-1")))
    return b"".join((b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason), *lines, framing, b"\r\n"))
