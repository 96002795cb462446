"""The engine's own spans over OTLP, one a request; name and attributes are vLLM's (v0.32, captured)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.clock import WallAnchor, now_ns
from proxy.simulator.engine.batching import Plan
from proxy.simulator.engine.job import Job
from proxy.simulator.server.metrics import Metrics
from proxy.simulator.server.text_requests import TextRequest
from proxy.units import ns_from_seconds

_SCOPE: Final = InstrumentationScope("vllm.tracing.otel")
_TIMEOUT_SECONDS: Final = 2.0
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


@dataclass(slots=True)
class _Request:
    """Data of a job for its span."""

    name: str
    text_request: TextRequest
    parent: SpanContext
    latencies: dict[str, float] = field(default_factory=dict)


class EngineSpans:
    """Observer of jobs that exports a span for each, from a thread of the SDK. Times in seconds."""

    def __init__(self, endpoint: str) -> None:
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_TIMEOUT_SECONDS)
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=500)
        self._resource = Resource.create({"service.name": "simulated-engine"})
        self._anchor = WallAnchor.take()
        self._ids = RandomIdGenerator()
        self._open: dict[str, _Request] = {}

    def begin(self, job: Job, name: str, text_request: TextRequest, traceparent: str | None) -> None:
        """Register a submitted job of the request ``name`` (the id that clients see)."""
        found = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
        self._open[job.name] = _Request(name, text_request, get_current_span(found).get_span_context())

    def scheduled(self, job: Job, waited: float) -> None:
        """Record that a job is in its first step."""
        self._note(job, time_in_queue=waited)

    def first(self, job: Job, waited: float, computed: float) -> None:
        """Record the first token of a job."""
        self._note(job, time_to_first_token=waited, time_in_model_prefill=computed)

    def ended(self, job: Job, duration: float, after_first: float) -> None:
        """Export the span of a job that has ended, unless its trace is not sampled."""
        self._note(job, e2e=duration, time_in_model_decode=after_first)
        request = self._open.pop(job.name, None)
        if request is not None and (not request.parent.is_valid or request.parent.trace_flags.sampled):
            self._processor.on_end(self._span(job, request, duration))

    def forget(self, job: Job) -> None:
        """Its client has gone."""
        self._open.pop(job.name, None)

    def close(self) -> None:
        """Send what is held; waits, a few seconds at most."""
        shutdown: Callable[[], None] = self._processor.shutdown
        shutdown()

    def _note(self, job: Job, **latencies: float) -> None:
        if (request := self._open.get(job.name)) is not None:
            request.latencies.update(latencies)

    def _span(self, job: Job, request: _Request, duration: float) -> ReadableSpan:
        end_ns, text_request, parent = now_ns(), request.text_request, request.parent
        seconds = request.latencies
        inference = seconds.get("time_in_model_prefill", 0.0) + seconds.get("time_in_model_decode", 0.0)
        latencies = {**seconds, "time_in_model_inference": inference}
        attributes: dict[str, str | int | float] = {
            **{f"gen_ai.latency.{name}": value for name, value in latencies.items()},
            "gen_ai.usage.prompt_tokens": job.prompt_tokens,
            "gen_ai.usage.completion_tokens": job.emitted,
            "gen_ai.request.id": request.name,
            "gen_ai.request.top_p": text_request.top_p,
            "gen_ai.request.max_tokens": text_request.tokens,
            "gen_ai.request.temperature": text_request.temperature,
            "gen_ai.request.n": text_request.choices,
        }
        trace_id = parent.trace_id if parent.is_valid else self._ids.generate_trace_id()
        return ReadableSpan(
            "llm_request",
            SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=_SAMPLED),
            parent if parent.is_valid else None,
            self._resource,
            attributes,
            kind=SpanKind.SERVER,
            start_time=self._anchor.unix(end_ns - ns_from_seconds(duration)),
            end_time=self._anchor.unix(end_ns),
            instrumentation_scope=_SCOPE,
        )


class Traced:
    """Observer of a runner that forwards everything to the metrics and the spans."""

    def __init__(self, metrics: Metrics, spans: EngineSpans) -> None:
        self._metrics = metrics
        self._spans = spans

    def step(self, plan: Plan, seconds: float) -> None:
        """Forward a step."""
        self._metrics.step(plan, seconds)

    def scheduled(self, job: Job, waited: float) -> None:
        """Forward the first step of a job."""
        self._metrics.scheduled(job, waited)
        self._spans.scheduled(job, waited)

    def first(self, job: Job, waited: float, computed: float) -> None:
        """Forward the first token of a job."""
        self._metrics.first(job, waited, computed)
        self._spans.first(job, waited, computed)

    def ended(self, job: Job, duration: float, after_first: float) -> None:
        """Forward the end of a job."""
        self._metrics.ended(job, duration, after_first)
        self._spans.ended(job, duration, after_first)

    def aborted(self) -> None:
        """Forward a disconnected client."""
        self._metrics.aborted()
