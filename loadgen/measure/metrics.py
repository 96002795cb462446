"""Numbers of a point from its records. Pure; each docstring holds its formula.

Latencies from *scheduled* are the headline: what a user who came at that moment would have waited.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from loadgen.config.slo import Objective, meets
from loadgen.measure.window import Window
from loadgen.results.records import Distribution, Record
from proxy.units import NS_PER_SECOND

Floats = npt.NDArray[np.float64]
_T95 = 1.96


def ttft(record: Record, *, from_sent: bool = False) -> float | None:
    """First token - scheduled (or sent), seconds."""
    start = record.sent_ns if from_sent else record.scheduled_ns
    if record.first_ns is None or start is None:
        return None
    return (record.first_ns - start) / NS_PER_SECOND


def e2e(record: Record, *, from_sent: bool = False) -> float | None:
    """End - scheduled (or sent), seconds."""
    start = record.sent_ns if from_sent else record.scheduled_ns
    if record.end_ns is None or start is None:
        return None
    return (record.end_ns - start) / NS_PER_SECOND


def tpot(record: Record) -> float | None:
    """(E2E - TTFT) / (n - 1), seconds; undefined for fewer than two output tokens."""
    n = record.output_tokens
    if record.first_ns is None or record.end_ns is None or n is None or n < 2:
        return None
    return (record.end_ns - record.first_ns) / (n - 1) / NS_PER_SECOND


def gaps(record: Record) -> list[float]:
    """Seconds between the reads that carried tokens.

    Tokens of one read share its stamp: they are one arrival, not many gaps of zero.
    """
    stamps = record.outputs_ns
    return [(b - a) / NS_PER_SECOND for a, b in pairwise(stamps)]


def mean_gap(record: Record) -> float | None:
    """Mean ITL of one request, as an SLO on itl judges it; None with fewer than two outputs."""
    stamps = record.outputs_ns
    if len(stamps) < 2:
        return None
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) / NS_PER_SECOND


def latencies(record: Record) -> dict[str, float | None]:
    """What an SLO judges, by metric name."""
    return {
        "ttft": ttft(record),
        "tpot": tpot(record),
        "itl": mean_gap(record),
        "e2e": e2e(record),
    }


def supported(percentile: float, count: int) -> bool:
    """Whether at least one of ``count`` values is expected beyond the percentile."""
    return count * (100 - percentile) >= 100 - 1e-9


def distribution(values: Sequence[float] | Floats) -> Distribution:
    """Mean with a 95 % interval by batch means, percentiles the sample supports, maximum."""
    if not len(values):
        return Distribution()
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    shown = {
        f"p{p}": float(np.percentile(array, p)) if supported(p, count) else None for p in (50, 90, 95, 99)
    }
    intervals = {name: _percentile_interval(array, float(name[1:]), at) for name, at in shown.items() if at}
    mean = float(array.mean())
    half = _half_width(array)
    return Distribution(
        count=count,
        mean=mean,
        mean_low=None if half is None else mean - half,
        mean_high=None if half is None else mean + half,
        max=float(array.max()),
        intervals={name: found for name, found in intervals.items() if found is not None},
        **shown,
    )


def _percentile_interval(array: Floats, percentile: float, at: float) -> tuple[float, float] | None:
    """The 95 % interval of a percentile by order statistics: ranks n p +- 1.96 sqrt(n p (1 - p) g).

    g is the inefficiency of the indicator of being above it: latencies in a queue correlate. None where
    the upper rank is beyond the sample: the true percentile may be larger than anything seen.
    """
    count, share = len(array), percentile / 100
    half = _T95 * math.sqrt(count * share * (1 - share) * inefficiency((array > at).astype(np.float64)))
    low, high = math.floor(count * share - half), math.ceil(count * share + half)
    if high >= count:
        return None
    ordered = np.sort(array)
    return float(ordered[max(low, 0)]), float(ordered[high])


def _half_width(array: Floats) -> float | None:
    """Half of the 95 % interval of the mean, from 10 batch means: latencies in a queue correlate."""
    batches = 10
    if len(array) < 2 * batches:
        return None
    means = np.array([part.mean() for part in np.array_split(array, batches)])
    return _T95 * 1.15 * float(means.std(ddof=1)) / math.sqrt(batches)


def values(records: Sequence[Record], metric: Callable[[Record], float | None]) -> list[float]:
    """The metric of the successful requests for which it is defined."""
    return [found for r in records if r.ok and (found := metric(r)) is not None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the objectives say of the requests scheduled in a window."""

    met: bool
    good: int
    total: int
    confidence: Literal["pass", "fail", "undecided"]


def judge(records: Sequence[Record], window: Window, slo: Sequence[Objective]) -> Judgement | None:
    """Whether each objective's share of *all* requests is within its limit; None without objectives.

    A failed or cut-off request is within no limit. Met: within >= percentile % of all. The confidence
    is that of a 95 % Wilson interval over the effective number of requests: near the knee latencies
    are correlated, so the count is divided by the inefficiency of batch means.
    """
    if not slo:
        return None
    chosen = [r for r in records if window.holds(r.scheduled_ns)]
    if not chosen:
        return Judgement(False, 0, 0, "undecided")
    judged = [latencies(r) if r.ok else None for r in chosen]
    good = sum(found is not None and meets(found, slo) for found in judged)
    sides = []
    for objective in slo:
        inside = np.array([found is not None and meets(found, [objective]) for found in judged])
        sides.append(_side(inside.astype(np.float64), objective.percentile / 100))
    met = all(side[0] for side in sides)
    certain = {side[1] for side in sides}
    if "fail" in certain:
        confidence: Literal["pass", "fail", "undecided"] = "fail"
    else:
        confidence = "pass" if certain == {"pass"} else "undecided"
    return Judgement(met, good, len(chosen), confidence)


def _side(inside: Floats, wanted: float) -> tuple[bool, str]:
    """Whether the share is reached, and whether its interval lies on one side of ``wanted``."""
    share = float(inside.mean())
    low, high = wilson(share, len(inside) / inefficiency(inside))
    met = share >= wanted - 1e-12
    return met, "pass" if low >= wanted else "fail" if high < wanted else "undecided"


def wilson(share: float, count: float, z: float = _T95) -> tuple[float, float]:
    """Wilson's interval of a proportion."""
    spread = z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return middle - half, middle + half


def inefficiency(series: Floats, batches: int = 20) -> float:
    """Variance of batch means over that of independent values, at least 1."""
    size = len(series) // batches
    variance = float(series.var())
    if size < 4 or variance == 0:
        return 1.0
    means = series[: size * batches].reshape(batches, size).mean(axis=1)
    return max(1.0, float(means.var(ddof=1)) * size / variance)


def pacing(records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Rate achieved (sends per second between first and last) and coefficient of variation of gaps."""
    sent = np.sort(np.array([r.sent_ns for r in records if r.sent_ns is not None], np.float64))
    if len(sent) < 3:
        return None, None
    between = np.diff(sent) / NS_PER_SECOND
    span = float(between.sum())
    if span <= 0:
        return None, None
    return len(between) / span, float(between.std() / between.mean())
