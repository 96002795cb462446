# Compiled by mypyc: see setup.py.
"""Trace context: W3C ``traceparent`` in, the proxy's own spans, ``traceparent`` out."""

import os
import re
from typing import Final

TRACEPARENT: Final = "traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags
_POOL: Final = 4096
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Trace:
    """Hexadecimal ids of one request: the proxy's SERVER span and its CLIENT child, the backend's parent."""

    __slots__ = ("client_span_id", "parent_span_id", "sampled", "server_span_id", "trace_id")

    def __init__(
        self,
        trace_id: str,
        server_span_id: str,
        client_span_id: str,
        parent_span_id: str | None,
        sampled: bool,
    ) -> None:
        self.trace_id = trace_id
        self.server_span_id = server_span_id
        self.client_span_id = client_span_id
        self.parent_span_id = parent_span_id
        self.sampled = sampled

    @property
    def traceparent(self) -> str:
        """The header for the backend."""
        return f"00-{self.trace_id}-{self.client_span_id}-{'01' if self.sampled else '00'}"


class Ids:
    """Random hexadecimal digits; one system call serves many requests, as it is the main cost."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def draw(self, count: int) -> str:
        """Return ``count`` unused digits; ``count`` is at most ``_POOL``."""
        if self._at + count > len(self._digits):
            self._digits, self._at = os.urandom(_POOL // 2).hex(), 0
        self._at += count
        return self._digits[self._at - count : self._at]


def continue_trace(traceparent: str | None, ids: str) -> Trace:
    """Continue the caller's trace; start one if it is absent or invalid. ``ids``: 64 random digits."""
    found = _FORM.fullmatch(traceparent.strip()) if traceparent else None
    usable = found is not None and found[1] != "ff" and found[2].strip("0") and found[3].strip("0")
    if not found or not usable:
        return Trace(ids[32:], ids[:16], ids[16:32], None, True)
    return Trace(found[2], ids[:16], ids[16:32], found[3], bool(int(found[4], 16) & 1))
