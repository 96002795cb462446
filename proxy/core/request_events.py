"""Start and end of a metered request, as the ledger and the exporters see them.

The meter builds one record of each from the relay's messages (:mod:`proxy.ipc`), which are an internal wire
format: exporters never see those. All stamps are nanoseconds of the host's monotonic clock.
"""

import msgspec

from proxy.core.events import Arrive, End


class RequestStart(msgspec.Struct, frozen=True, gc=False):
    """A metered request was sent to its backend; ``arrive`` is the event that the attribution sees."""

    arrive: Arrive
    method: str = "POST"
    path: str = ""
    server_address: str | None = None
    server_port: int | None = None
    trace_id: str | None = None  # 32 hex digits
    server_span_id: str | None = None  # 16 hex digits: the proxy's SERVER span
    client_span_id: str | None = None  # its CLIENT child, the parent that the backend sees
    parent_span_id: str | None = None  # the client's own span, from traceparent
    trace_sampled: bool = True
    max_tokens: int | None = None
    received_ns: int | None = None  # when the request head reached the proxy


class RequestEnd(msgspec.Struct, frozen=True, gc=False):
    """The response ended or failed, or the client disconnected; ``end`` is the event for the attribution."""

    end: End
    first_byte_ns: int | None = None
    response_id: str | None = None
    response_model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    error_type: str | None = None  # e.g. "connect_error", "upstream_reset", "cancelled", "503"
    metered: bool = True  # false: compressed or unknown body, its tokens could not be read
    unread: tuple[str, ...] = ()  # names of fields that could not be parsed: "request.model"
