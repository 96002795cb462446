"""Prometheus: counters and histograms of final records, gauges read at the scrape. A scrape changes nothing.

What is not known is never counted as zero: it is in ``jouleproxy_unknown_energy_requests_total{reason}``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UntypedMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from proxy.exporters.base import Finished
from proxy.exporters.labels import LABEL_LIMIT, OTHER, BoundedValues
from proxy.schema import DeviceAccount, RequestEnergy

SERIES_LIMIT: Final = 5_000  # of the joules by model, route, backend, tenant and part
_REQUEST_LABELS: Final = ("model", "route", "backend", "tenant", "part")
_JOULES: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
_JOULES_PER_TOKEN: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_TTFT: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_TPOT: Final = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is read at a scrape."""

    accounts: list[DeviceAccount]
    in_flight: dict[str, int]
    dropped: int
    failures: Mapping[str, int] = field(default_factory=dict)  # of exporters, by name
    backends_up: Mapping[str, bool] = field(default_factory=dict)  # by name; those of which relays told


class PrometheusExporter:
    """Exporter and page of the admin port."""

    name = "prometheus"

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = CollectorRegistry()
        self._labels: dict[str, BoundedValues] = {}
        self._children: list[tuple[Counter | Histogram, dict[tuple[str, ...], Any]]] = []
        self._registry.register(_AtScrape(snapshot, lambda: self._joules))
        self._joules: dict[tuple[str, ...], float] = {}
        self._other = self._counter(
            "jouleproxy_labels_limited", "Label values beyond the limit, shown as other.", ("label",)
        )
        self._tokens = self._counter("jouleproxy_tokens", "Tokens of finished requests.", ("model", "kind"))
        self._unknown = self._counter(
            "jouleproxy_unknown_energy_requests",
            "Requests whose joules are not, or not wholly, known.",
            ("reason",),
        )
        self._unread = self._counter(
            "jouleproxy_unread_fields",
            "Finished requests with a field of their request or response that could not be read.",
            ("field",),
        )
        self._per_request = self._histogram(
            "jouleproxy_request_joules", "Joules of one request.", _JOULES, ("model", "route")
        )
        self._per_token = self._histogram(
            "jouleproxy_joules_per_output_token", "Joules of a request per output token.", _JOULES_PER_TOKEN
        )
        self._ttft = self._histogram("jouleproxy_ttft_seconds", "Time to the first token.", _TTFT)
        self._tpot = self._histogram("jouleproxy_tpot_seconds", "Time per output token.", _TPOT)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Callable[..., Counter]:
        """The counter of some labels, looked up once for each: the library checks all of them every time."""
        return self._cached(Counter(name, text, labels, registry=self._registry))

    def _histogram(
        self, name: str, text: str, buckets: Iterable[float], labels: tuple[str, ...] = ("model",)
    ) -> Callable[..., Histogram]:
        return self._cached(Histogram(name, text, labels, registry=self._registry, buckets=tuple(buckets)))

    def _cached(self, metric: Counter | Histogram) -> Callable[..., Any]:
        children: dict[tuple[str, ...], Any] = {}
        self._children.append((metric, children))

        def child(*labels: str) -> Any:
            found = children.get(labels)
            if found is None:
                found = children[labels] = metric.labels(*labels)
            return found

        return child

    def _label(self, name: str, value: str | None, t_ns: int = 0, *, claim: bool = True) -> str:
        """Return the value of a label, bounded by :class:`BoundedValues`; ``claim``: it may take a slot."""
        values = self._labels.get(name)
        if values is None:
            values = self._labels[name] = BoundedValues(
                LABEL_LIMIT, lambda: self._other(name).inc(), partial(self._drop, name)
            )
        return values.value(value, t_ns, claim=claim)

    def _drop(self, name: str, value: str) -> None:
        """Drop the series of a value that lost its slot; its joules are added to those of ``other``."""
        for metric, children in self._children:
            if name in metric._labelnames:  # noqa: SLF001 - the library has no other way to ask
                metric.remove_by_labels({name: value})
                children.clear()
        if name not in _REQUEST_LABELS:
            return
        at = _REQUEST_LABELS.index(name)
        for key in [key for key in self._joules if key[at] == value]:
            other = (*key[:at], OTHER, *key[at + 1 :])
            self._joules[other] = self._joules.get(other, 0.0) + self._joules.pop(key)

    def export(self, finished: Finished) -> None:
        """Count a final record."""
        record = finished.record
        t_ns, claim = record.start_unix_ns, not finished.refused
        model = self._label("model", record.model, t_ns, claim=claim)
        exemplar = {"trace_id": record.trace_id} if record.trace_id else None
        for kind, tokens in (("prompt", record.prompt_tokens), ("output", record.output_tokens)):
            if tokens is not None:
                self._tokens(model, kind).inc(tokens)
        if record.unknown is not None:
            self._unknown(self._label("reason", record.unknown)).inc()
        for name in finished.end.unread:
            self._unread(self._label("field", name)).inc()
        if record.joules is not None:
            tenant = self._label("tenant", record.tenant, t_ns, claim=claim)
            self._count_joules(record, (model, tenant), record.joules, exemplar)
        self._count_times(record, model, exemplar)

    def _count_joules(
        self, record: RequestEnergy, who: tuple[str, str], joules: float, exemplar: dict[str, str] | None
    ) -> None:
        model, tenant = who
        route, backend = self._label("route", record.route), self._label("backend", record.backend)
        parts = {"all": joules} if record.parts is None else msgspec.structs.asdict(record.parts)
        for part, value in parts.items():
            if value is None:
                continue
            key = (model, route, backend, tenant, part)
            if key not in self._joules and len(self._joules) >= SERIES_LIMIT:
                self._other("series").inc()
                key = (OTHER, OTHER, OTHER, OTHER, part)
            self._joules[key] = self._joules.get(key, 0.0) + value
        if record.unknown is None:
            self._per_request(model, route).observe(joules, exemplar)
            if record.output_tokens:
                self._per_token(model).observe(joules / record.output_tokens, exemplar)

    def _count_times(self, record: RequestEnergy, model: str, exemplar: dict[str, str] | None) -> None:
        if record.ttft_s is None or record.duration_s is None:
            return
        self._ttft(model).observe(record.ttft_s, exemplar)
        if record.output_tokens is not None and record.output_tokens > 1:
            tpot = (record.duration_s - record.ttft_s) / (record.output_tokens - 1)
            self._tpot(model).observe(tpot, exemplar)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type; OpenMetrics, with exemplars, where it is accepted."""
        if "application/openmetrics-text" in accept:
            page: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]
            return page, OPENMETRICS_TYPE
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Nothing is held."""


class _AtScrape:
    """Gauges and counters read when they are asked for."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], joules: Callable[[], dict[tuple[str, ...], float]]
    ) -> None:
        self._snapshot = snapshot
        self._joules = joules

    def describe(self) -> list[Metric]:
        """Nothing beforehand: names are known at the scrape."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        now = self._snapshot()
        joules = CounterMetricFamily(
            "jouleproxy_device_joules", "Measured joules by account.", labels=("device", "account")
        )
        watts = GaugeMetricFamily(
            "jouleproxy_device_watts", "Power over the last window.", labels=("device",)
        )
        age = GaugeMetricFamily(
            "jouleproxy_sample_age_seconds", "Age of the newest reading.", labels=("device",)
        )
        for account in now.accounts:
            joules.add_metric((account.device, "requests"), account.requests_joules)
            joules.add_metric((account.device, "idle"), account.idle_joules)
            joules.add_metric((account.device, "unattributed"), account.unattributed_joules)
            if account.watts is not None:
                watts.add_metric((account.device,), account.watts)
            if account.sample_age_s is not None:
                age.add_metric((account.device,), account.sample_age_s)
        flight = GaugeMetricFamily(
            "jouleproxy_requests_in_flight", "Requests being answered.", labels=("backend",)
        )
        for backend, count in now.in_flight.items():
            flight.add_metric((backend,), count)
        dropped = CounterMetricFamily(
            "jouleproxy_events_dropped", "Events that did not fit into a relay's buffer."
        )
        dropped.add_metric((), now.dropped)
        failures = CounterMetricFamily(
            "jouleproxy_exporter_failures", "Records an exporter could not take.", labels=("exporter",)
        )
        for name, count in now.failures.items():
            failures.add_metric((name,), count)
        # A counter's family may not share its name with a histogram's (OpenMetrics 1.0): sent untyped.
        requests = UntypedMetricFamily(
            "jouleproxy_request_joules_total", "Joules of finished requests, by part.", labels=_REQUEST_LABELS
        )
        for key, value in self._joules().items():
            requests.add_metric(key, value)
        up = GaugeMetricFamily(
            "jouleproxy_backend_up",
            "Whether a backend takes requests (1) or is left out.",
            labels=("backend",),
        )
        for backend, takes in now.backends_up.items():
            up.add_metric((backend,), float(takes))
        return [joules, watts, age, flight, up, dropped, failures, requests]
