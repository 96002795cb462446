"""The result formats: ``Record`` (one request), ``Point`` (one load) and ``Run``. Pure.

Times of a record are nanoseconds since the start of its point, on the monotonic clock of the load generator.
``None`` means unknown or undefined, never zero. Field names and order are part of the file formats.
"""

from typing import Any, Literal

import msgspec

from proxy.schema import Parts

SCHEMA = 1
INTERRUPTED = "interrupted: only a part of this point"
Verdict = Literal["pass", "fail", "generator-bound", "interrupted"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    ``scheduled_ns`` is its deadline in the schedule, ``dispatched_ns`` when the load generator processed it,
    ``sent_ns`` when its bytes were written to the socket. ``outputs_ns`` are the arrival times of the reads
    with tokens, and ``counts`` the number of token chunks in each. ``error`` is None for a success.
    ``joules`` and ``parts`` are the proxy's; ``unknown`` is the reason if it has none.
    """

    point: int
    index: int
    id: str
    scheduled_ns: int
    dispatched_ns: int
    sent_ns: int | None = None
    first_ns: int | None = None
    end_ns: int | None = None
    outputs_ns: list[int] = []
    counts: list[int] = []
    status: int | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    images: int | None = None
    joules: float | None = None
    parts: Parts | None = None
    unknown: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the response was complete and without an error."""
        return self.error is None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Mean, percentiles and maximum in seconds; a percentile the sample cannot support is null.

    ``mean_low`` and ``mean_high`` are the 95 % interval of the mean, ``intervals`` those of percentiles
    by name; an interval that the sample cannot bound is absent.
    """

    count: int = 0
    mean: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    intervals: dict[str, tuple[float, float]] = {}


class EnergyTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Joules of a time span over all devices; the parts add up to ``joules``."""

    joules: float
    seconds: float
    source: str
    parts: dict[str, float | None]
    notes: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of one point, as in ``run.json``. Latencies are from *scheduled* unless named otherwise."""

    concurrency: int | None
    rate: float | None
    requests: int
    failed: int
    duration_seconds: float
    window_seconds: tuple[float, float]
    requests_per_second: float
    goodput_per_second: float | None
    output_tokens_per_second: float | None
    ttft_seconds: Distribution
    ttft_from_sent_seconds: Distribution
    tpot_seconds: Distribution
    itl_seconds: Distribution
    e2e_seconds: Distribution
    e2e_from_sent_seconds: Distribution
    late_seconds: Distribution
    lag_seconds: Distribution
    achieved_rate: float | None = None
    gap_cv: float | None = None
    max_in_flight: int = 0
    mean_in_flight: float | None = None
    cpu_share: float | None = None
    watts: float | None = None
    joules: float | None = None
    joules_per_request: float | None = None
    joules_per_output_token: float | None = None
    tokens_per_joule: float | None = None
    images_per_second: float | None = None
    images_per_joule: float | None = None
    goodput_per_watt: float | None = None
    parts_joules: dict[str, float | None] = {}
    energy_source: str | None = None
    power_limit_watts: float | None = None
    idle_watts: float | None = None
    slo_met: bool | None = None
    slo_confidence: Literal["pass", "fail", "undecided"] | None = None
    stable: bool = True
    generator_bound: bool = False
    notes: list[str] = []


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found: the highest load within the SLO and its 95 % interval, as far as known.

    ``reason`` is why it ended; ``seconds`` is what its ``probes`` took, waits between them included.
    ``confirmed`` are the indices of the points that confirmed a load within the SLO; no other point can be
    the best one.
    """

    kind: Literal["rate", "concurrency"]
    level: float | None
    low: float | None
    high: float | None
    reason: str
    probes: int
    seconds: float
    confirmed: tuple[int, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``: everything about a run except its requests."""

    schema: int = SCHEMA
    run_id: str
    spec: dict[str, Any]
    seed: int
    versions: dict[str, str]
    verdict: Verdict
    best: int | None
    points: list[Point]
    notes: list[str] = []
    knee: Knee | None = None


def encode_run(run: Run) -> bytes:
    """Encode ``run.json``, indented, with fields in a fixed order."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"


def decode_run(data: bytes) -> Run:
    """Decode ``run.json``; raises ``ValueError`` with the invalid field."""
    return msgspec.json.decode(data, type=Run)


def encode_records(records: list[Record]) -> bytes:
    """Encode records as JSON lines."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def decode_records(data: bytes) -> list[Record]:
    """Decode records from JSON lines; raises ``ValueError`` with the line number."""
    decoder = msgspec.json.Decoder(Record)
    found = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            found.append(decoder.decode(line))
        except msgspec.MsgspecError as error:
            raise ValueError(f"requests.jsonl line {number}: {error}") from error
    return found
