"""A final record of one chat request, as exporters see it."""

from proxy.clock import WallAnchor
from proxy.core.events import Arrive, End
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.exporters.base import Finished
from proxy.schema import Parts, RequestEnergy

TRACE, SERVER, CLIENT, PARENT = "a" * 32, "b" * 16, "c" * 16, "d" * 16
ANCHOR = WallAnchor(0, 1_000)
RECORD = RequestEnergy(
    request_id="r",
    trace_id=TRACE,
    model="m",
    backend="b",
    tenant="t",
    status=200,
    duration_s=3.0,
    ttft_s=1.0,
    prompt_tokens=10,
    output_tokens=5,
    joules=20.0,
    joules_low=18.0,
    joules_high=22.0,
    parts=Parts(static=10.0, prefill=5.0, decode=3.0, context=2.0),
    devices={"gpu0": 20.0},
    source="nvml",
    final=True,
)


def finished(record: RequestEnergy = RECORD, *, sampled: bool = True) -> Finished:
    """Return a record with the relay's messages of it; ``sampled``: whether its trace is."""
    start = RequestStart(
        Arrive(100, "r", "chat", "m"),
        path="/v1/chat/completions",
        trace_id=record.trace_id,
        server_span_id=SERVER,
        client_span_id=CLIENT,
        parent_span_id=PARENT,
        trace_sampled=sampled,
        max_tokens=7,
        received_ns=90,
    )
    end = RequestEnd(
        End(400, "r", 200),
        response_id="c1",
        finish_reasons=("stop",),
        unread=("request.max_tokens",),
    )
    return Finished(record, start, end, 200, ANCHOR)
