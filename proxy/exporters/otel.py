"""Export to OpenTelemetry: spans and metrics by OTLP over HTTP.

A request is a SERVER span; the model call is its CLIENT child, with the phases as INTERNAL children. The ids
of the spans were sent to the backend in ``traceparent`` long before the energy is known, and a span of the
SDK cannot be given an id. So complete ``ReadableSpan`` objects are built when the record is final, with the
times at which things happened. Names are those of :mod:`proxy.exporters.conventions`.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from threading import Thread
from typing import Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from proxy.clock import now_ns
from proxy.exporters import conventions as names
from proxy.exporters.base import Finished
from proxy.exporters.labels import LABEL_LIMIT, BoundedValues
from proxy.exporters.otel_settings import OtelSettings, read
from proxy.schema import DeviceAccount
from proxy.units import ns_from_seconds, seconds_from_ns

_SCOPE: Final = InstrumentationScope("jouleproxy")
_TIMEOUT_SECONDS: Final = 5.0  # of one export, retries included
_DELAY_MS: Final = 1000.0  # of a span in the queue
_CLOSE_SECONDS: Final = 4.0  # an unreachable collector must not delay the end of the process
_LIMITS: Final = SpanLimits()  # OTEL_SPAN_ATTRIBUTE_*, OTEL_ATTRIBUTE_*
_log = logging.getLogger(__name__)


def otel_exporter(
    endpoint: str | None,
    servers: Mapping[str, names.Server] | None = None,
    kinds: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> "OtelExporter | None":
    """Return the exporter, or None if no endpoint is configured.

    Args:
        endpoint: Base URL of ``--otlp``; None: the endpoints of ``OTEL_EXPORTER_OTLP_*``.
        servers: Address and port of each backend, by name.
        kinds: ``gpu`` or ``host`` for each device, by id.
        environ: Environment variables.

    Raises:
        ConfigError: if ``endpoint`` is not a usable URL.
    """
    settings = read(endpoint, environ)
    variables = settings.variables or {}
    spans = metrics = None
    if settings.traces is not None:
        spans = OTLPSpanExporter(settings.traces, timeout=_timeout(variables, "TRACES"))
    if settings.metrics is not None:
        metrics = OTLPMetricExporter(settings.metrics, timeout=_timeout(variables, "METRICS"))
    if spans is None and metrics is None:
        return None
    return OtelExporter(spans, metrics, servers or {}, kinds or {}, settings)


def _timeout(variables: Mapping[str, str], signal: str) -> float:
    """Return the longest duration of one export in seconds, retries included."""
    name = "OTEL_EXPORTER_OTLP_TIMEOUT"
    own = variables.get(name.replace("OTLP_", f"OTLP_{signal}_"))
    return float(own or variables.get(name) or _TIMEOUT_SECONDS)


class OtelExporter:
    """Sends spans in batches and metrics at intervals, from threads of the SDK.

    Args:
        spans: Exporter of the SDK for spans, or None.
        metrics: Exporter of the SDK for metrics, or None.
        servers: Address and port of each backend, by name.
        kinds: ``gpu`` or ``host`` for each device, by id.
        settings: Result of :func:`proxy.exporters.otel_settings.read`.
    """

    name = "otel"

    def __init__(
        self,
        spans: SpanExporter | None,
        metrics: MetricExporter | None,
        servers: Mapping[str, names.Server],
        kinds: Mapping[str, str],
        settings: OtelSettings,
    ) -> None:
        variables = settings.variables or {}
        self._resource = Resource.create({"service.name": settings.service})
        self._servers = servers
        delay = float(variables.get("OTEL_BSP_SCHEDULE_DELAY", _DELAY_MS))
        self._processor = BatchSpanProcessor(spans, schedule_delay_millis=delay) if spans else None
        self._metrics = Metrics(metrics, self._resource, kinds) if metrics else None
        self._models = BoundedValues(
            LABEL_LIMIT
        )  # shared by span names and metrics; the SDK cannot drop series

    def export(self, finished: Finished) -> None:
        """Count a request, and queue its spans if its trace is sampled."""
        server = self._servers.get(finished.record.backend or "")
        if self._metrics is not None:
            self._metrics.count(finished, server, self._bounded(finished))
        sampled = finished.start.trace_sampled and finished.record.trace_id
        if self._processor is not None and sampled:
            for span in spans_of(finished, self._resource, server, self._bounded(finished)[0]):
                self._processor.on_end(span)

    def _bounded(self, finished: Finished) -> tuple[str | None, str | None]:
        """Return the models of request and response, limited in number for names and labels."""

        def bounded(model: str | None) -> str | None:
            return self._models.value(model, 0, claim=not finished.refused) if model else None

        return bounded(finished.record.model), bounded(finished.end.response_model)

    def observe(self, accounts: Sequence[DeviceAccount]) -> None:
        """Set the accounts of the devices, which the SDK's thread reads at its next export."""
        if self._metrics is not None:
            self._metrics.accounts = accounts

    def close(self) -> None:
        """Send queued data, at most for ``_CLOSE_SECONDS``; data that cannot be sent is lost and logged."""
        parts = [part.shutdown for part in (self._processor, self._metrics) if part is not None]
        threads = [Thread(target=shutdown, daemon=True) for shutdown in parts]
        for thread in threads:
            thread.start()
        deadline = now_ns() + ns_from_seconds(_CLOSE_SECONDS)
        for thread in threads:
            thread.join(seconds_from_ns(max(deadline - now_ns(), 0)))
        if any(thread.is_alive() for thread in threads):
            _log.warning("otlp: the collector does not respond: the last spans or metrics are lost")


class Metrics:
    """Metrics ``gen_ai.*`` of finished requests and ``hw.*`` of devices."""

    def __init__(self, exporter: MetricExporter, resource: Resource, kinds: Mapping[str, str]) -> None:
        self.accounts: Sequence[DeviceAccount] = ()
        self._kinds = kinds
        reader = PeriodicExportingMetricReader(exporter)  # every OTEL_METRIC_EXPORT_INTERVAL ms, default 60 s
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("jouleproxy")
        self._duration, self._ttft, self._tpot, self._tokens = _histograms(meter)
        meter.create_observable_counter("hw.energy", [self._energy], "J", "Energy measured by the device.")
        meter.create_observable_gauge("hw.power", [self._power], "W", "Power over the last window.")

    def count(
        self, finished: Finished, server: names.Server | None, models: tuple[str | None, str | None]
    ) -> None:
        """Count a request; values that are not known are not counted.

        Args:
            finished: The final record.
            server: Address and port of its backend.
            models: Models of request and response, limited in number.
        """
        record = finished.record
        attributes = names.metric_attributes(finished, server, models)
        if record.duration_s is not None:
            self._duration.record(record.duration_s, attributes)
            if record.ttft_s is not None:
                self._ttft.record(record.ttft_s, attributes)
            if record.ttft_s is not None and (record.output_tokens or 0) > 1:
                spread = (record.duration_s - record.ttft_s) / ((record.output_tokens or 0) - 1)
                self._tpot.record(spread, attributes)
        for kind, tokens in (("input", record.prompt_tokens), ("output", record.output_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})

    def _energy(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(a.measured_joules, self._of(a)) for a in self.accounts]

    def _power(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(a.watts, self._of(a)) for a in self.accounts if a.watts is not None]

    def _of(self, account: DeviceAccount) -> names.Attributes:
        return names.hardware_attributes(account.device, account.name, self._kinds.get(account.device, "gpu"))

    def shutdown(self) -> None:
        """Export once more and stop the SDK's thread."""
        self._provider.shutdown()


def _histograms(meter: Meter) -> list[Histogram]:
    definitions = (
        ("gen_ai.server.request.duration", "s", "Time from sent to ended.", names.SECONDS_BUCKETS),
        ("gen_ai.server.time_to_first_token", "s", "Time to the first output.", names.TTFT_BUCKETS),
        ("gen_ai.server.time_per_output_token", "s", "Time per token after the first.", names.TPOT_BUCKETS),
        ("gen_ai.client.token.usage", "{token}", "Tokens of a request.", names.TOKEN_BUCKETS),
    )
    return [
        meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=list(buckets))
        for name, unit, text, buckets in definitions
    ]


def spans_of(
    finished: Finished,
    resource: Resource,
    server: names.Server | None = None,
    model: str | None = None,
) -> list[ReadableSpan]:
    """Return the spans of a request, parents first.

    Args:
        finished: The final record.
        resource: Resource of the process.
        server: Address and port of the backend.
        model: Model for the name of the CLIENT span; None: the record's own.
    """
    record, start, ended = finished.record, finished.start, finished.end
    trace_id = int(record.trace_id or "0", 16)
    outer, call = start.server_span_id or "0", start.client_span_id or "0"
    arrive, end = start.arrive.t_ns, ended.end.t_ns
    status = Status(StatusCode.UNSET if ended.error_type is None else StatusCode.ERROR)

    def span(
        name: str, ids: tuple[str, str | None], kind: SpanKind, times: tuple[int, int], has: names.Attributes
    ) -> ReadableSpan:
        own, parent = ids
        return ReadableSpan(
            name,
            context=_context(trace_id, own, remote=False),
            parent=_context(trace_id, parent, remote=kind is SpanKind.SERVER) if parent else None,
            resource=resource,
            attributes=BoundedAttributes(
                _LIMITS.max_span_attributes, has, max_value_len=_LIMITS.max_span_attribute_length
            ),
            kind=kind,
            status=status if kind is not SpanKind.INTERNAL else Status(StatusCode.UNSET),
            start_time=finished.anchor.unix(times[0]),
            end_time=finished.anchor.unix(max(times)),
            instrumentation_scope=_SCOPE,
        )

    received = (start.received_ns or arrive, end)
    call_name = f"{names.operation_of(record)} {model or record.model or ''}".strip()
    has = {**names.call_attributes(finished, server), **names.energy_attributes(record)}
    spans = [
        span(
            f"{start.method} {start.path}",
            (outer, start.parent_span_id),
            SpanKind.SERVER,
            received,
            names.request_attributes(finished),
        ),
        span(call_name, (call, outer), SpanKind.CLIENT, (arrive, end), has),
    ]
    for name, begin, finish, joules in names.phases_of(finished):
        own = f"{(int(call, 16) + len(spans)) & (2**64 - 1):016x}"
        phase = names.known({"energy.joules": joules})
        spans.append(span(name, (own, call), SpanKind.INTERNAL, (begin, finish), phase))
    return spans


def _context(trace_id: int, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(trace_id, int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))
