"""OpenTelemetry: a SERVER span for the request, a CLIENT child for the model call, its phases under that.

Tokens and joules are on the child alone, or they would be counted twice. Names follow the GenAI semantic
conventions (repository semantic-conventions-genai, status Development, as of 1.38) in :data:`OPERATIONS`
and ``_call_attributes``; ``energy.*`` is ours, no convention exists. The ids are those the backend saw, so
the spans are built whole, when the joules are final, with the times at which things happened.
"""

import os
from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from proxy.exporters.base import Finished
from proxy.schema import RequestEnergy

OPERATIONS: Final = {
    "chat": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
}
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SCOPE: Final = InstrumentationScope("jouleproxy")


def otel_exporter(endpoint: str | None, environ: Mapping[str, str] = os.environ) -> "OtelExporter | None":
    """The exporter to ``endpoint`` (a base URL), or to where ``OTEL_EXPORTER_OTLP_*`` say; else None."""
    if endpoint is not None:
        return OtelExporter(OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces"))
    if any(environ.get(name) for name in _ENDPOINTS):
        return OtelExporter(OTLPSpanExporter())
    return None


class OtelExporter:
    """Spans in batches, from a thread of the SDK's own."""

    name = "otel"

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "jouleproxy")})
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=1000)

    def export(self, finished: Finished) -> None:
        """Hand over the spans of a request, if its trace is sampled."""
        if finished.opened.trace_sampled and finished.record.trace_id:
            for span in spans_of(finished, self._resource):
                self._processor.on_end(span)

    def close(self) -> None:
        """Send what is held."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def spans_of(finished: Finished, resource: Resource) -> list[ReadableSpan]:
    """The spans of a request, parents first."""
    record, opened, closed = finished.record, finished.opened, finished.closed
    unix = finished.anchor.unix
    trace_id = int(record.trace_id or "0", 16)
    arrive, end = opened.arrive.t_ns, closed.end.t_ns
    failed = closed.error_type is not None
    status = Status(StatusCode.ERROR) if failed else Status(StatusCode.UNSET)

    def span(
        name: str,
        span_id: str,
        parent: str | None,
        kind: SpanKind,
        times: tuple[int, int],
        attributes: Mapping[str, AttributeValue | None],
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context=_context(trace_id, span_id, remote=False),
            parent=_context(trace_id, parent, remote=kind is SpanKind.SERVER) if parent else None,
            resource=resource,
            attributes={key: value for key, value in attributes.items() if value is not None},
            kind=kind,
            status=status if kind is not SpanKind.INTERNAL else Status(StatusCode.UNSET),
            start_time=unix(times[0]),
            end_time=unix(max(times)),
            instrumentation_scope=_SCOPE,
        )

    server, client = opened.server_span_id or "0", opened.client_span_id or "0"
    operation = OPERATIONS.get(record.route, "generate_content")
    received = opened.received_ns or arrive
    spans = [
        span(
            f"{opened.method} {opened.path}",
            server,
            opened.parent_span_id,
            SpanKind.SERVER,
            (received, end),
            _request_attributes(finished),
        ),
        span(
            f"{operation} {record.model or ''}".strip(),
            client,
            server,
            SpanKind.CLIENT,
            (arrive, end),
            {**_call_attributes(finished, operation), **_energy_attributes(record)},
        ),
    ]
    first = finished.first_output_ns
    if first is not None:
        phases = (("prefill", arrive, first), ("decode", first, end))
        for name, begin, finish in phases:
            span_id = f"{(int(client, 16) + len(spans)) & (2**64 - 1):016x}"
            spans.append(
                span(
                    name,
                    span_id,
                    client,
                    SpanKind.INTERNAL,
                    (begin, finish),
                    {"energy.joules": _phase_joules(record, name)},
                )
            )
    return spans


def _context(trace_id: int, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(trace_id, int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))


def _phase_joules(record: RequestEnergy, phase: str) -> float | None:
    """What is surely of one phase: prefill tokens; decode tokens and their context. Static is of both."""
    if record.parts is None:
        return None
    return record.parts.prefill if phase == "prefill" else record.parts.decode + record.parts.context


def _request_attributes(finished: Finished) -> dict[str, AttributeValue | None]:
    return {
        "http.request.method": finished.opened.method,
        "url.path": finished.opened.path,
        "http.response.status_code": finished.record.status,
        "error.type": finished.closed.error_type,
        "jouleproxy.request_id": finished.record.request_id,
    }


def _call_attributes(finished: Finished, operation: str) -> dict[str, AttributeValue | None]:
    record, opened, closed = finished.record, finished.opened, finished.closed
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": record.stream,
        "gen_ai.request.max_tokens": opened.max_tokens,
        "gen_ai.response.id": closed.response_id,
        "gen_ai.response.model": closed.response_model,
        "gen_ai.response.finish_reasons": list(closed.finish_reasons) or None,
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.output.type": "image" if record.route == "images" else "text",
        "server.address": opened.server_address,
        "server.port": opened.server_port,
        "error.type": closed.error_type,
    }


def _energy_attributes(record: RequestEnergy) -> dict[str, AttributeValue | None]:
    parts = record.parts
    joules, tokens = record.joules, record.output_tokens
    return {
        "energy.joules": joules,
        "energy.joules.low": record.joules_low,
        "energy.joules.high": record.joules_high,
        "energy.static.joules": parts.static if parts else None,
        "energy.prefill.joules": parts.prefill if parts else None,
        "energy.decode.joules": parts.decode if parts else None,
        "energy.context.joules": parts.context if parts else None,
        "energy.joules_per_output_token": joules / tokens if joules is not None and tokens else None,
        "energy.policy": record.policy,
        "energy.evidence": record.evidence,
        "energy.source": record.source,
        "energy.devices": list(record.devices) or None,
        "energy.unknown": record.unknown,
    }
