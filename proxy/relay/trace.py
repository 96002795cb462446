"""Trace context: W3C ``traceparent`` in, the proxy's own spans, ``traceparent`` out."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """Ids of one call, hex: the SERVER span of the proxy and its CLIENT child, the backend's parent."""

    trace_id: str
    server_span_id: str
    client_span_id: str
    parent_span_id: str | None
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header for the backend."""
        return f"00-{self.trace_id}-{self.client_span_id}-{'01' if self.sampled else '00'}"


def continue_trace(traceparent: str | None) -> Trace:
    """The caller's trace, or a new one where the header is absent or not valid."""
    found = _FORM.fullmatch(traceparent.strip()) if traceparent else None
    usable = found is not None and found[1] != "ff" and found[2].strip("0") and found[3].strip("0")
    if not found or not usable:
        return Trace(secrets.token_hex(16), secrets.token_hex(8), secrets.token_hex(8), None, True)
    sampled = bool(int(found[4], 16) & 1)
    return Trace(found[2], secrets.token_hex(8), secrets.token_hex(8), found[3], sampled)
