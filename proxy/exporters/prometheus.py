"""The ``/metrics`` page: counts final records, reads the meter's state, as the register of metrics defines.

The metrics themselves are in :mod:`proxy.exporters.metrics`. A scrape has no side effects. Two limits keep
memory bounded although clients choose the names of models and tenants: ``LABEL_LIMIT`` values of a label and
``SERIES_LIMIT`` series of an untyped metric; beyond them the label value is ``other`` and no joule is lost.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UntypedMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from proxy.exporters.base import Finished
from proxy.exporters.labels import LABEL_LIMIT, OTHER, BoundedValues
from proxy.exporters.metrics import (
    LABELS_LIMITED,
    REQUEST_METRICS,
    STATE_METRICS,
    Metric,
    Observations,
    RequestMetric,
    Snapshot,
    StateMetric,
)

SERIES_LIMIT: Final = 5_000  # of one untyped metric: the joules by model, route, backend, tenant and part
# Labels whose values clients choose: a request that was refused gets no slot of its own for them, and a slot
# that was not used for an hour is released.
_CHOSEN_BY_CLIENTS: Final = frozenset({"model", "tenant"})
# Labels with a fixed set of values: not limited.
_FIXED: Final = frozenset({"part", "kind"})

_EXEMPLAR_SECONDS: Final = 1.0  # between two of one bucket

Labels = tuple[str, ...]


class PrometheusExporter:
    """Exporter of final records, and the page of the admin port.

    Args:
        snapshot: Returns the meter's state; called once for each scrape.
        request_metrics: Metrics that are updated once for each record.
        state_metrics: Metrics that are read at each scrape.
    """

    name = "prometheus"

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        request_metrics: Sequence[RequestMetric] = REQUEST_METRICS,
        state_metrics: Sequence[StateMetric] = STATE_METRICS,
    ) -> None:
        self._registry = CollectorRegistry()
        self._label_values: dict[str, BoundedValues] = {}
        self._sums = {one.metric.name: _Sums(one.metric) for one in request_metrics if _is_untyped(one)}
        self._registry.register(_AtScrape(snapshot, state_metrics, tuple(self._sums.values())))
        self._series: dict[str, _Series] = {}
        self._limited = self._add_series(LABELS_LIMITED)
        self._metrics: list[_Counted] = []
        for one in request_metrics:
            counted = self._sums.get(one.metric.name) or self._add_series(one.metric)
            self._metrics.append(_Counted(one.metric.labels, one.observe, counted.add))

    def _add_series(self, metric: Metric) -> "_Series":
        series = self._series[metric.name] = _Series(metric, self._registry)
        return series

    def export(self, finished: Finished) -> None:
        """Add a final record to all metrics."""
        record = finished.record
        exemplar = {"trace_id": record.trace_id} if record.trace_id else None
        # By label: each value is counted once for a record, and its slot is in use.
        shown = {"model": (record.model, self._bound("model", record.model, finished))}
        if record.joules is not None:
            shown["tenant"] = record.tenant, self._bound("tenant", record.tenant, finished)
        for metric in self._metrics:
            for values, amount in metric.observe(finished):
                labels = metric.known.get(values)
                if labels is None:
                    labels = self._labels_of(metric, values, shown, finished)
                if not metric.add(labels, amount, exemplar):
                    self._limited.add(("series",), 1, None)

    def _labels_of(
        self,
        metric: "_Counted",
        values: tuple[str | None, ...],
        shown: dict[str, tuple[str | None, str]],
        finished: Finished,
    ) -> Labels:
        """Return the values to show for labels; they are kept while none of them is limited."""
        labels = []
        for name, value in zip(metric.labels, values, strict=True):
            found = shown.get(name)
            if found is None or found[0] != value:
                found = shown[name] = value, self._bound(name, value, finished)
            labels.append(found[1])
        bounded = tuple(labels)
        if len(metric.known) < SERIES_LIMIT and OTHER not in bounded:
            metric.known[values] = bounded
        return bounded

    def _bound(self, name: str, value: str | None, finished: Finished) -> str:
        """Return the value to show for a label, limited in number by :class:`BoundedValues`."""
        if name in _FIXED:
            return value or ""
        values = self._label_values.get(name)
        if values is None:
            values = self._label_values[name] = BoundedValues(
                LABEL_LIMIT, lambda: self._count_limited(name), partial(self._drop, name)
            )
        if name in _CHOSEN_BY_CLIENTS:
            return values.value(value, finished.record.start_unix_ns, claim=not finished.refused)
        return values.value(value, 0)

    def _count_limited(self, name: str) -> None:
        self._limited.add((name,), 1, None)

    def _drop(self, name: str, value: str) -> None:
        """Drop the series of a value that lost its slot; sums are added to those of ``other``."""
        for metric in self._metrics:
            metric.known.clear()
        for series in self._series.values():
            series.drop(name, value)
        for sums in self._sums.values():
            sums.drop(name, value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type; OpenMetrics, with exemplars, where it is accepted.

        Args:
            accept: The request's ``Accept`` header.
        """
        if "application/openmetrics-text" in accept:
            page: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]
            return page, OPENMETRICS_TYPE
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Do nothing: no resources are held."""


@dataclass(slots=True)
class _Counted:
    """A metric of requests: its labels, what a record adds to it, and where that is added.

    ``known``: labels as shown, by the values of records; only where no value is limited.
    """

    labels: tuple[str, ...]
    observe: Callable[[Finished], Observations]
    add: Callable[[Labels, float, dict[str, str] | None], bool]
    known: dict[tuple[str | None, ...], Labels] = field(default_factory=dict)


def _is_untyped(one: RequestMetric) -> bool:
    return one.metric.type == "untyped"


def _of_library(metric: Metric, registry: CollectorRegistry) -> Counter | Histogram:
    if metric.type == "histogram":
        return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


class _Series:
    """The series of one counter or histogram of the Prometheus library.

    The library validates label values at each ``labels()`` call, so its children are cached here; and
    exemplars at each observation: one a second is enough for each bucket.
    """

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = _of_library(metric, registry)
        self._observes = metric.type == "histogram"
        self._labels = metric.labels
        self._children: dict[Labels, Any] = {}
        self._buckets = metric.buckets
        self._exemplars: dict[tuple[Labels, int], float] = {}  # when each bucket was given one

    def add(self, labels: Labels, amount: float, exemplar: dict[str, str] | None) -> bool:
        """Count or observe an amount; always True: the number of series is limited by the labels alone."""
        child: Any = self._children.get(labels)
        if child is None:
            self._children[labels] = child = self._metric.labels(*labels) if labels else self._metric
        if self._observes:
            if exemplar is not None:
                bucket, now = (labels, bisect_left(self._buckets, amount)), monotonic()
                if now - self._exemplars.get(bucket, -_EXEMPLAR_SECONDS) < _EXEMPLAR_SECONDS:
                    exemplar = None
                else:
                    self._exemplars[bucket] = now
            child.observe(amount, exemplar)
        else:
            child.inc(amount)
        return True

    def drop(self, name: str, value: str) -> None:
        """Remove all series with this value of a label."""
        if name in self._labels:
            self._metric.remove_by_labels({name: value})
            self._children.clear()
            self._exemplars.clear()


class _Sums:
    """The sums of one untyped metric, limited to ``SERIES_LIMIT`` series."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float, _exemplar: dict[str, str] | None) -> bool:
        """Add an amount; False if it was added to ``other`` because there are too many series.

        The last label keeps its value: it is a part of an amount, the others name the owner.
        """
        fits = labels in self._values or len(self._values) < SERIES_LIMIT
        if not fits:
            labels = (*(OTHER,) * (len(labels) - 1), labels[-1])
        self._values[labels] = self._values.get(labels, 0.0) + amount
        return fits

    def drop(self, name: str, value: str) -> None:
        """Move the sums with this value of a label to ``other``."""
        if name not in self._metric.labels:
            return
        at = self._metric.labels.index(name)
        for key in [key for key in self._values if key[at] == value]:
            other = (*key[:at], OTHER, *key[at + 1 :])
            self._values[other] = self._values.get(other, 0.0) + self._values.pop(key)

    def family(self) -> Family:
        """Return the metric with its present values."""
        family = UntypedMetricFamily(self._metric.name, self._metric.help, labels=self._metric.labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class _AtScrape:
    """Collector of the library for values that are read at the scrape."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], metrics: Sequence[StateMetric], sums: Sequence[_Sums]
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._sums = sums

    def describe(self) -> list[Family]:
        """Return no metric: otherwise the library would call ``collect`` when this is registered."""
        return []

    def collect(self) -> Iterable[Family]:
        """Return the metrics of the meter's state, and the sums."""
        now = self._snapshot()
        for one in self._metrics:
            metric = one.metric
            make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=metric.labels)
            for labels, value in one.read(now):
                family.add_metric([label or "" for label in labels], value)
            yield family
        yield from (sums.family() for sums in self._sums)
