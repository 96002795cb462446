"""Metrics of a point from its records. Pure; the docstring of each metric has its formula.

Reported latencies are from *scheduled*: the time that a user who arrived at that moment would have waited,
including delays inside the load generator.
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
_T95 = 1.96  # 97.5th percentile of the normal distribution


def ttft(record: Record, *, from_sent: bool = False) -> float | None:
    """Return first token - scheduled (or sent), seconds; None if unknown."""
    start = record.sent_ns if from_sent else record.scheduled_ns
    if record.first_ns is None or start is None:
        return None
    return (record.first_ns - start) / NS_PER_SECOND


def e2e(record: Record, *, from_sent: bool = False) -> float | None:
    """Return end - scheduled (or sent), seconds; None if unknown."""
    start = record.sent_ns if from_sent else record.scheduled_ns
    if record.end_ns is None or start is None:
        return None
    return (record.end_ns - start) / NS_PER_SECOND


def tpot(record: Record) -> float | None:
    """Return (E2E - TTFT) / (n - 1), seconds; None for fewer than two output tokens."""
    n = record.output_tokens
    if record.first_ns is None or record.end_ns is None or n is None or n < 2:
        return None
    return (record.end_ns - record.first_ns) / (n - 1) / NS_PER_SECOND


def gaps(record: Record) -> list[float]:
    """Return the times between successive reads with tokens, seconds (ITL).

    Tokens of one read share its stamp; they are one arrival, not several with gaps of zero.
    """
    stamps = record.outputs_ns
    return [(b - a) / NS_PER_SECOND for a, b in pairwise(stamps)]


def mean_gap(record: Record) -> float | None:
    """Return the mean ITL of one request, which an SLO on itl limits; None with fewer than two outputs."""
    stamps = record.outputs_ns
    if len(stamps) < 2:
        return None
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) / NS_PER_SECOND


def latencies(record: Record) -> dict[str, float | None]:
    """Return the metrics of a request that an SLO can limit, by name, in seconds."""
    return {
        "ttft": ttft(record),
        "tpot": tpot(record),
        "itl": mean_gap(record),
        "e2e": e2e(record),
    }


def supported(percentile: float, count: int) -> bool:
    """Return whether at least one of ``count`` values is expected above the percentile."""
    return count * (100 - percentile) >= 100 - 1e-9


def distribution(values: Sequence[float] | Floats) -> Distribution:
    """Return mean, maximum and the percentiles that the sample supports, with 95 % intervals."""
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
    """Return the 95 % interval of a percentile by order statistics: ranks n p +- 1.96 sqrt(n p (1 - p) g).

    g is the statistical inefficiency of the indicator "above the percentile", since latencies in a queue are
    correlated. None if the upper rank is beyond the sample: the true percentile may exceed every value.
    """
    count, share = len(array), percentile / 100
    half = _T95 * math.sqrt(count * share * (1 - share) * inefficiency((array > at).astype(np.float64)))
    low, high = math.floor(count * share - half), math.ceil(count * share + half)
    if high >= count:
        return None
    ordered = np.sort(array)
    return float(ordered[max(low, 0)]), float(ordered[high])


def _half_width(array: Floats) -> float | None:
    """Return half the 95 % interval of the mean, from 10 batch means (latencies in a queue are correlated).

    1.96 * 1.15 is the 97.5th percentile of Student's t distribution with 9 degrees of freedom, 2.26.
    """
    batches = 10
    if len(array) < 2 * batches:
        return None
    means = np.array([part.mean() for part in np.array_split(array, batches)])
    return _T95 * 1.15 * float(means.std(ddof=1)) / math.sqrt(batches)


def values(records: Sequence[Record], metric: Callable[[Record], float | None]) -> list[float]:
    """Return the values of a metric over the successful requests for which it is defined."""
    return [found for r in records if r.ok and (found := metric(r)) is not None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on the requests scheduled in a window; ``good`` of ``total`` met every objective."""

    met: bool
    good: int
    total: int
    confidence: Literal["pass", "fail", "undecided"]


def judge(records: Sequence[Record], window: Window, slo: Sequence[Objective]) -> Judgement | None:
    """Return whether the SLO is met: for each objective, at least percentile % of *all* requests meet it.

    A failed or interrupted request meets none. ``confidence`` is the result of a 95 % Wilson interval with
    the effective number of requests: latencies near the knee are correlated, so the count is divided by the
    statistical inefficiency. None without objectives.
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


def _side(inside: Floats, required: float) -> tuple[bool, str]:
    """Return whether the share is reached, and whether its interval is entirely on one side."""
    share = float(inside.mean())
    low, high = wilson(share, len(inside) / inefficiency(inside))
    met = share >= required - 1e-12
    return met, "pass" if low >= required else "fail" if high < required else "undecided"


def wilson(share: float, count: float, z: float = _T95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927)."""
    spread = z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return middle - half, middle + half


def inefficiency(series: Floats, batches: int = 20) -> float:
    """Return the statistical inefficiency: the variance of batch means over that of independent values.

    At least 1; 1 if the series is too short to estimate it.
    """
    size = len(series) // batches
    variance = float(series.var())
    if size < 4 or variance == 0:
        return 1.0
    means = series[: size * batches].reshape(batches, size).mean(axis=1)
    return max(1.0, float(means.var(ddof=1)) * size / variance)


def pacing(records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Return the achieved rate (requests sent per second) and the coefficient of variation of the gaps.

    Both are None with fewer than three requests.
    """
    sent = np.sort(np.array([r.sent_ns for r in records if r.sent_ns is not None], np.float64))
    if len(sent) < 3:
        return None, None
    between = np.diff(sent) / NS_PER_SECOND
    span = float(between.sum())
    if span <= 0:
        return None, None
    return len(between) / span, float(between.std() / between.mean())
