"""The differences between two runs, with confidence intervals, and the joules by part. Pure.

Points of the same load are compared. The interval of a change comes from a seeded bootstrap over blocks of
consecutive requests: latencies in a queue are correlated, so that resampling single requests would give
intervals that are too narrow. The level is 99 %, since many numbers are compared. A point with too few
requests has no intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from loadgen.measure.metrics import e2e, supported, tpot, ttft
from loadgen.measure.operating_points import level_of
from loadgen.measure.window import Window
from loadgen.results.records import Point, Record, Run
from proxy.units import ns_from_seconds

Floats = npt.NDArray[np.float64]
_BLOCKS = 20
_LEAST = 3 * _BLOCKS  # requests for an interval
_RESAMPLES = 1000
_LEVEL = (0.5, 99.5)  # percentiles of the interval
_SAME_SPEC = ("endpoint", "model", "input", "output", "arrivals", "prefix_share", "dataset", "turns", "slo")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change ``b / a - 1`` of one metric; ``low`` and ``high`` are its 99 % interval, None if unknown."""

    name: str
    a: float | None
    b: float | None
    relative: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes no change."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The changes at one load, and joules per request by part as (a, b)."""

    load: str
    changes: list[Change]
    parts: dict[str, tuple[float | None, float | None]]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two runs; ``notes`` list the differences in their settings."""

    a: str
    b: str
    loads: list[Compared]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    of: Callable[[Record], float | None]
    percentile: float | None  # None: the mean


_METRICS = (
    _Metric("TTFT p50", ttft, 50), _Metric("TTFT p95", ttft, 95), _Metric("TTFT p99", ttft, 99),
    _Metric("TPOT p50", tpot, 50), _Metric("TPOT p99", tpot, 99),
    _Metric("E2E p50", e2e, 50), _Metric("E2E p99", e2e, 99),
    _Metric("J/request", lambda record: record.joules, None),
)  # fmt: skip
_PLAIN = {
    "req/s": "requests_per_second",
    "goodput/s": "goodput_per_second",
    "tokens/s": "output_tokens_per_second",
    "W": "watts",
    "tokens/J": "tokens_per_joule",
}


def compare(a: tuple[Run, Sequence[Record]], b: tuple[Run, Sequence[Record]]) -> Comparison:
    """Compare two runs at every load that both have; raises ``ValueError`` if they have none in common."""
    (run_a, records_a), (run_b, records_b) = a, b
    if run_a.spec.get("mode") != run_b.spec.get("mode"):
        raise ValueError("one run is over rates, the other over concurrency: they cannot be compared")
    first = {level_of(point): index for index, point in enumerate(run_a.points)}
    pairs = [(first[load], i) for i, p in enumerate(run_b.points) if (load := level_of(p)) in first]
    if not pairs and (run_a.knee is None or run_b.knee is None):
        raise ValueError("the runs share no load: sweep both over the same --rate or --concurrency")
    loads = [
        _compared((run_a.points[i], _of(records_a, i)), (run_b.points[j], _of(records_b, j)))
        for i, j in pairs
    ]
    return Comparison(a=run_a.run_id, b=run_b.run_id, loads=loads, notes=_notes(run_a, run_b))


def _of(records: Sequence[Record], number: int) -> list[Record]:
    return [record for record in records if record.point == number]


def _notes(a: Run, b: Run) -> list[str]:
    differ = [name for name in _SAME_SPEC if a.spec.get(name) != b.spec.get(name)]
    found = [f"{name} differs: {a.spec.get(name)} and {b.spec.get(name)}" for name in differ]
    sources = {p.energy_source for run in (a, b) for p in run.points if p.energy_source}
    if len(sources) > 1:
        found.append("energy from different sources: " + ", ".join(sorted(sources)))
    if a.knee is not None and b.knee is not None and a.knee.level and b.knee.level:
        apart = (a.knee.high or 0) < (b.knee.low or 0) or (b.knee.high or 0) < (a.knee.low or 0)
        sure = (
            "their 95 % intervals are apart" if apart else "within their 95 % intervals: no difference shown"
        )
        found.append(f"knee {a.knee.level:g} and {b.knee.level:g}: {sure}")
    return found


def _compared(a: tuple[Point, Sequence[Record]], b: tuple[Point, Sequence[Record]]) -> Compared:
    plain = [_plain(name, getattr(a[0], field), getattr(b[0], field)) for name, field in _PLAIN.items()]
    sampled = [_sampled(metric, _window(*a), _window(*b)) for metric in _METRICS]
    parts = {name: (_part(a[0], name), _part(b[0], name)) for name in (a[0].parts_joules | b[0].parts_joules)}
    load = a[0].concurrency if a[0].concurrency is not None else f"{a[0].rate:g}/s"
    changes = [change for change in (*plain, *sampled) if change.a is not None or change.b is not None]
    return Compared(load=str(load), changes=changes, parts=parts)


def _window(point: Point, records: Sequence[Record]) -> list[Record]:
    start, end = point.window_seconds
    window = Window(ns_from_seconds(start), ns_from_seconds(end))
    return [r for r in records if r.ok and window.holds(r.scheduled_ns)]


def _part(point: Point, name: str) -> float | None:
    """Return joules per request of a part: its share of the window's joules times joules per request."""
    value = point.parts_joules.get(name)
    if value is None or not point.joules or point.joules_per_request is None:
        return None
    return value / point.joules * point.joules_per_request


def _plain(name: str, a: float | None, b: float | None) -> Change:
    return Change(name=name, a=a, b=b, relative=b / a - 1 if a and b is not None else None)


def _sampled(metric: _Metric, a: Sequence[Record], b: Sequence[Record]) -> Change:
    left, right = (_values(metric, records) for records in (a, b))
    before, after = _statistic(metric, left), _statistic(metric, right)
    change = _plain(metric.name, before, after)
    if change.relative is None or min(len(left), len(right)) < _LEAST:
        return change
    ratio = _resampled(metric, right, 2) / _resampled(metric, left, 1) - 1
    low, high = np.percentile(ratio, _LEVEL)
    return msgspec.structs.replace(change, low=float(low), high=float(high))


def _values(metric: _Metric, records: Sequence[Record]) -> Floats:
    return np.array([value for r in records if (value := metric.of(r)) is not None], np.float64)


def _statistic(metric: _Metric, values: Floats) -> float | None:
    if not len(values) or (metric.percentile is not None and not supported(metric.percentile, len(values))):
        return None
    return float(values.mean() if metric.percentile is None else np.percentile(values, metric.percentile))


def _resampled(metric: _Metric, values: Floats, seed: int) -> Floats:
    """Return the statistic of resamples of blocks of consecutive requests."""
    size = len(values) // _BLOCKS
    blocks = values[: size * _BLOCKS].reshape(_BLOCKS, size)
    picks = np.random.default_rng(seed).integers(0, _BLOCKS, (_RESAMPLES, _BLOCKS))
    if metric.percentile is None:
        return np.asarray(blocks.mean(axis=1)[picks].mean(axis=1), np.float64)
    rank = round((size * _BLOCKS - 1) * metric.percentile / 100)
    rows = (np.partition(blocks[some].reshape(len(some), -1), rank)[:, rank] for some in np.split(picks, 20))
    return np.concatenate(list(rows))


def as_text(found: Comparison) -> str:
    """Return the comparison as text, with significant changes marked."""
    lines = [f"a = {found.a}, b = {found.b}; * = changed at 99 % (bootstrap over blocks of requests)"]
    for one in found.loads:
        lines += ["", f"load {one.load}", f"  {'':10} {'a':>10} {'b':>10} {'change':>9}   99 % interval"]
        lines += [_change_line(change) for change in one.changes]
        lines += _part_lines(one)
    return "\n".join([*lines, *(["", *found.notes] if found.notes else []), ""])


def _change_line(change: Change) -> str:
    relative = "-" if change.relative is None else f"{change.relative:+.1%}"
    span = "" if change.low is None or change.high is None else f"{change.low:+.1%} .. {change.high:+.1%}"
    mark = " *" if change.significant else ""
    values = f"{_digits(change.a):>10} {_digits(change.b):>10}"
    return f"  {change.name:10} {values} {relative:>9}   {span}{mark}".rstrip()


def _part_lines(one: Compared) -> list[str]:
    known = {name: (a, b) for name, (a, b) in one.parts.items() if a is not None and b is not None}
    if not known:
        return []
    order = sorted(known, key=lambda name: -abs(known[name][1] - known[name][0]))
    total = sum(b - a for a, b in known.values())
    lines = [f"  where the joules of a request went ({total:+.3g} J in total):"]
    for name in order:
        a, b = known[name]
        lines.append(f"    {name:12} {a:9.3g} J {b:9.3g} J {b - a:+9.3g} J")
    return lines


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
