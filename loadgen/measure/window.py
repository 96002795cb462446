"""The measurement window of a point: after the warm-up, before the tail. Pure.

Throughput counts requests that *end* in the window; latency those *scheduled* in it, which are awaited to
their end. So neither the warm-up nor requests in flight at the end bias a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.results.records import Record
from proxy.units import NS_PER_SECOND

_BATCHES = 40  # of MSER
_MIN_REQUESTS = 20  # for MSER
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """[start_ns, end_ns) since the start of the point; ``notes`` explain what is left out."""

    start_ns: int
    end_ns: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / NS_PER_SECOND

    def holds(self, t_ns: int | None) -> bool:
        """Return whether a time is inside; an unknown time is not."""
        return t_ns is not None and self.start_ns <= t_ns < self.end_ns


def steady_window(
    records: Sequence[Record], end_ns: int, warmup: str | float, concurrency: int | None
) -> Window:
    """Return the window of a point whose sending ended at ``end_ns``.

    ``warmup`` is seconds or a rule. ``none``: all of the point. ``mlenergy``: while the number of requests in
    flight is at its peak, as in the ML.ENERGY benchmark. ``auto``: after one service time in a closed loop,
    where all requests start at once, and after the truncation point of MSER over batch means of latency
    (White 1997), which is in the first half.
    """
    if not isinstance(warmup, str):
        return _after(round(warmup * NS_PER_SECOND), end_ns, f"warm-up of {warmup:g} s left out")
    if warmup == "none" or not records:
        return Window(0, end_ns)
    if warmup == "mlenergy":
        return peak_window(records, end_ns)
    ends = [(r.scheduled_ns, r.end_ns - r.scheduled_ns) for r in records if r.end_ns and r.ok]
    start = _first_round_ns(ends) if concurrency else 0
    later = [pair for pair in ends if start <= pair[0] < end_ns]
    if len(later) >= _MIN_REQUESTS:
        start = max(start, _mser_ns(later))
    if start > end_ns // 2:
        note = "too short for a steady state: a request takes more than half of the time"
        return Window(0, end_ns, (note,))
    return _after(start, end_ns, f"first {start / NS_PER_SECOND:.2f} s left out as warm-up")


def _after(start_ns: int, end_ns: int, note: str) -> Window:
    if start_ns >= end_ns:
        return Window(0, end_ns, ("the warm-up is longer than the run: nothing left out",))
    return Window(start_ns, end_ns, (note,) if start_ns else ())


def _first_round_ns(ends: Sequence[tuple[int, int]]) -> int:
    """Return when the first request had ended."""
    return min((at + lasted for at, lasted in ends), default=0)


def _mser_ns(pairs: Sequence[tuple[int, int]]) -> int:
    """Return the start that minimises the standard error of the mean of the remaining batches (MSER)."""
    ordered = sorted(pairs)
    size = max(1, len(ordered) // _BATCHES)
    count = len(ordered) // size
    values = np.array([lasted for _, lasted in ordered[: count * size]], dtype=np.float64)
    means = values.reshape(count, size).mean(axis=1)
    score = [float(np.var(means[cut:])) / (count - cut) for cut in range(count // 2 + 1)]
    best = int(np.argmin(score))
    # Noise alone lowers the score a little: only a clear gain indicates a warm-up.
    return ordered[best * size][0] if best and score[best] < 0.8 * score[0] else 0


def peak_window(records: Sequence[Record], end_ns: int) -> Window:
    """Return the window from the first to the last moment at the peak number of requests in flight."""
    steps = sorted([(r.scheduled_ns, 1) for r in records] + [(r.end_ns, -1) for r in records if r.end_ns])
    level, peak, first, last = 0, 0, 0, end_ns
    for at, change in steps:
        if change < 0 and level == peak:
            last = at
        level += change
        if level > peak:
            peak, first = level, at
    return Window(first, min(max(last, first + 1), end_ns), ("window by the ML.ENERGY rule",))


def in_flight(records: Sequence[Record], window: Window) -> tuple[int, float | None]:
    """Return the peak number of requests in flight, and its mean over the window (by scheduled times)."""
    starts = np.array([r.scheduled_ns for r in records], dtype=np.int64)
    ends = np.array([window.end_ns if r.end_ns is None else r.end_ns for r in records], np.int64)
    if not len(starts) or window.seconds <= 0:
        return 0, None
    times = np.concatenate([starts, ends])
    # At equal times, ends come before starts.
    order = np.lexsort((np.repeat([1, 0], len(starts)), times))
    level = np.cumsum(np.repeat([1, -1], len(starts))[order])
    inside = np.clip(ends, window.start_ns, window.end_ns) - np.clip(starts, window.start_ns, window.end_ns)
    return int(level.max()), float(inside.sum()) / (window.end_ns - window.start_ns)


def drift_seconds_per_second(records: Sequence[Record], window: Window) -> float | None:
    """Return the slope of latency over time; None unless it exceeds 3 standard errors of batch means.

    A growing queue has no steady state, however low its first latencies are.
    """
    pairs = sorted(
        (r.scheduled_ns, r.end_ns - r.scheduled_ns)
        for r in records
        if r.end_ns and r.ok and window.holds(r.scheduled_ns)
    )
    batches = 10
    size = len(pairs) // batches
    if size < 3:
        return None
    grouped = np.array(pairs[: size * batches], np.float64).reshape(batches, size, 2).mean(axis=1)
    x: Floats = grouped[:, 0] / NS_PER_SECOND
    y: Floats = grouped[:, 1] / NS_PER_SECOND
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    residual = y - y.mean() - slope * x
    error = float(np.sqrt(residual @ residual / (batches - 2) / (x @ x)))
    return slope if slope > 3 * error and slope > 0.01 else None
