"""Headers: what is passed on, and what is between two neighbours only (RFC 9110, section 7.6)."""

from collections.abc import Iterable
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.relay.trace import TRACEPARENT, Trace
from proxy.schema import ENERGY_HEADER, REQUEST_ID_HEADER

_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_VIA: Final = "1.1 jouleproxy"


def end_to_end(headers: CIMultiDictProxy[str], drop: Iterable[str] = ()) -> CIMultiDict[str]:
    """The headers that travel on, order and case kept; without those ``Connection`` nominates."""
    nominated = {
        name.strip().lower() for value in headers.getall("Connection", ()) for name in value.split(",")
    }
    gone = _HOP_BY_HOP | nominated | set(drop)
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in gone)


def for_backend(
    headers: CIMultiDictProxy[str], request_id: str, trace: Trace | None, client: str | None
) -> CIMultiDict[str]:
    """The request headers a backend gets."""
    out = end_to_end(headers, ("host", "content-length", "expect", ENERGY_HEADER))
    out[REQUEST_ID_HEADER] = request_id
    if trace is not None:
        out[TRACEPARENT] = trace.traceparent
    if client:
        before = headers.get("X-Forwarded-For")
        out["X-Forwarded-For"] = f"{before}, {client}" if before else client
    out.setdefault("X-Forwarded-Host", headers.get("Host", ""))
    out.add("Via", _VIA)
    return out
