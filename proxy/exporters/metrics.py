"""The register of Prometheus metrics: name, type, help text, labels, and the function that gives its values.

A new metric costs one entry in ``REQUEST_METRICS`` (updated once for each final record) or ``STATE_METRICS``
(read from the meter's state at each scrape). ``/metrics``, the table in ``docs/telemetry.md`` and the check
of dashboards and alert rules are made from the register; ``docs/extending.md`` shows an example. Nothing here
depends on the Prometheus library: :mod:`proxy.exporters.prometheus` does the counting.

A value that is not known yields no observation. It is never counted as zero: the request is counted in
``jouleproxy_unknown_energy_requests_total`` with its reason.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from proxy.exporters.base import Finished
from proxy.schema import DeviceAccount

# Upper limits of histogram buckets: joules, joules per token, seconds.
_JOULES: Final = (
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
    300.0,
    1_000.0,
    3_000.0,
    10_000.0,
    30_000.0,
    100_000.0,
)
_JOULES_PER_TOKEN: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_TTFT: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_TPOT: Final = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)

Observations = Iterable[tuple[tuple[str | None, ...], float]]
"""Values with the values of their labels, in the order of the metric's labels."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the meter at a scrape.

    Attributes:
        accounts: The account of each device, in joules since the start.
        in_flight: Number of requests in progress, by backend.
        dropped: Events that did not fit into a relay's buffer, since the start.
        failures: Records that an exporter could not process, by exporter.
        backends_up: Whether a backend receives requests, by name; only those of which a relay reported.
    """

    accounts: list[DeviceAccount]
    in_flight: dict[str, int]
    dropped: int
    failures: Mapping[str, int] = field(default_factory=dict)
    backends_up: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """The description of a metric.

    Attributes:
        name: As in queries: a counter ends in ``_total``.
        type: Prometheus type. ``untyped`` is a counter whose family would have the name of a histogram,
            which OpenMetrics 1.0 forbids.
        help: The ``# HELP`` line.
        labels: Names of the labels. The number of values of each is limited.
        note: What users need to know about the labels, for the table in ``docs/telemetry.md``.
        buckets: Upper limits of a histogram's buckets, ascending.
    """

    name: str
    type: Literal["counter", "gauge", "histogram", "untyped"]
    help: str
    labels: tuple[str, ...] = ()
    note: str = ""
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestMetric:
    """A metric of finished requests. ``observe`` returns what one final record adds to it."""

    metric: Metric
    observe: Callable[[Finished], Observations]


@dataclass(frozen=True, slots=True)
class StateMetric:
    """A counter or gauge of the meter's state. ``read`` returns all its values at a scrape."""

    metric: Metric
    read: Callable[[Snapshot], Observations]


def _joules_by_part(finished: Finished) -> Observations:
    record = finished.record
    if record.joules is None:
        return
    parts = {"all": record.joules} if record.parts is None else msgspec.structs.asdict(record.parts)
    for part, joules in parts.items():
        if joules is not None:
            yield (record.model, record.route, record.backend, record.tenant, part), joules


def _tokens(finished: Finished) -> Observations:
    record = finished.record
    for kind, tokens in (("prompt", record.prompt_tokens), ("output", record.output_tokens)):
        if tokens is not None:
            yield (record.model, kind), tokens


def _unknown(finished: Finished) -> Observations:
    if finished.record.unknown is not None:
        yield (finished.record.unknown,), 1


def _unread(finished: Finished) -> Observations:
    for name in finished.end.unread:
        yield (name,), 1


def _request_joules(finished: Finished) -> Observations:
    record = finished.record
    if record.joules is not None and record.unknown is None:
        yield (record.model, record.route), record.joules


def _joules_per_token(finished: Finished) -> Observations:
    record = finished.record
    if record.joules is not None and record.unknown is None and record.output_tokens:
        yield (record.model,), record.joules / record.output_tokens


def _ttft(finished: Finished) -> Observations:
    record = finished.record
    if record.ttft_s is not None and record.duration_s is not None:
        yield (record.model,), record.ttft_s


def _tpot(finished: Finished) -> Observations:
    """(duration - TTFT) / (tokens - 1); undefined for fewer than two tokens."""
    record = finished.record
    if record.ttft_s is None or record.duration_s is None:
        return
    if record.output_tokens is not None and record.output_tokens > 1:
        yield (record.model,), (record.duration_s - record.ttft_s) / (record.output_tokens - 1)


def _device_joules(now: Snapshot) -> Observations:
    for account in now.accounts:
        yield (account.device, "requests"), account.requests_joules
        yield (account.device, "idle"), account.idle_joules
        yield (account.device, "unattributed"), account.unattributed_joules


def _watts(now: Snapshot) -> Observations:
    return [((account.device,), account.watts) for account in now.accounts if account.watts is not None]


def _sample_age(now: Snapshot) -> Observations:
    return [((one.device,), one.sample_age_s) for one in now.accounts if one.sample_age_s is not None]


def _in_flight(now: Snapshot) -> Observations:
    return [((backend,), count) for backend, count in now.in_flight.items()]


def _backends_up(now: Snapshot) -> Observations:
    return [((backend,), float(up)) for backend, up in now.backends_up.items()]


def _dropped(now: Snapshot) -> Observations:
    return [((), now.dropped)]


def _failures(now: Snapshot) -> Observations:
    return [((exporter,), count) for exporter, count in now.failures.items()]


STATE_METRICS: Final = (
    StateMetric(
        Metric(
            "jouleproxy_device_joules_total",
            "counter",
            "Measured joules by account.",
            ("device", "account"),
            "`account`: requests, idle, unattributed; their sum is the counter's increase.",
        ),
        _device_joules,
    ),
    StateMetric(
        Metric("jouleproxy_device_watts", "gauge", "Power over the last window.", ("device",)), _watts
    ),
    StateMetric(
        Metric("jouleproxy_sample_age_seconds", "gauge", "Age of the newest reading.", ("device",)),
        _sample_age,
    ),
    StateMetric(
        Metric("jouleproxy_requests_in_flight", "gauge", "Requests being answered.", ("backend",)),
        _in_flight,
    ),
    StateMetric(
        Metric(
            "jouleproxy_backend_up",
            "gauge",
            "Whether a backend takes requests (1) or is left out.",
            ("backend",),
        ),
        _backends_up,
    ),
    StateMetric(
        Metric(
            "jouleproxy_events_dropped_total",
            "counter",
            "Events that did not fit into a relay's buffer.",
        ),
        _dropped,
    ),
    StateMetric(
        Metric(
            "jouleproxy_exporter_failures_total",
            "counter",
            "Records an exporter could not take.",
            ("exporter",),
        ),
        _failures,
    ),
)

REQUEST_METRICS: Final = (
    RequestMetric(
        Metric(
            "jouleproxy_request_joules_total",
            "untyped",
            "Joules of finished requests, by part.",
            ("model", "route", "backend", "tenant", "part"),
            "`part`: static, prefill, decode, context, idle, unseparated (energy of parts that the data does "
            "not separate); `all` under a policy without parts; their sum is the total energy.",
        ),
        _joules_by_part,
    ),
    RequestMetric(
        Metric(
            "jouleproxy_tokens_total",
            "counter",
            "Tokens of finished requests.",
            ("model", "kind"),
            "`kind`: prompt, output.",
        ),
        _tokens,
    ),
    RequestMetric(
        Metric(
            "jouleproxy_unknown_energy_requests_total",
            "counter",
            "Requests whose joules are not, or not wholly, known.",
            ("reason",),
            "`reason`: see [below](#reasons-of-unknown-values).",
        ),
        _unknown,
    ),
    RequestMetric(
        Metric(
            "jouleproxy_unread_fields_total",
            "counter",
            "Finished requests with a field of their request or response that could not be read.",
            ("field",),
            "`field`: such as `request.model` or `response.usage.prompt_tokens`.",
        ),
        _unread,
    ),
    RequestMetric(
        Metric(
            "jouleproxy_request_joules",
            "histogram",
            "Joules of one request.",
            ("model", "route"),
            buckets=_JOULES,
        ),
        _request_joules,
    ),
    RequestMetric(
        Metric(
            "jouleproxy_joules_per_output_token",
            "histogram",
            "Joules of a request per output token.",
            ("model",),
            buckets=_JOULES_PER_TOKEN,
        ),
        _joules_per_token,
    ),
    RequestMetric(
        Metric("jouleproxy_ttft_seconds", "histogram", "Time to the first token.", ("model",), buckets=_TTFT),
        _ttft,
    ),
    RequestMetric(
        Metric("jouleproxy_tpot_seconds", "histogram", "Time per output token.", ("model",), buckets=_TPOT),
        _tpot,
    ),
)

# Counted by the exporter itself, see ``proxy.exporters.labels``.
LABELS_LIMITED: Final = Metric(
    "jouleproxy_labels_limited_total",
    "counter",
    "Label values beyond the limit, shown as other.",
    ("label",),
)


def all_metrics() -> tuple[Metric, ...]:
    """Return the description of every metric on ``/metrics``."""
    return (
        *(one.metric for one in REQUEST_METRICS),
        *(one.metric for one in STATE_METRICS),
        LABELS_LIMITED,
    )
