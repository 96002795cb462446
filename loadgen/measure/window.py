"""Which part of a point counts: after the warm-up, before the tail. Pure.

Throughput counts what *ends* in the window, latency what was *scheduled* in it (and is waited for to its
end): so neither the ramp nor the requests cut off at the end bend a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.results.records import Record
from proxy.units import NS_PER_SECOND

_BATCHES = 40
_MIN_REQUESTS = 20
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """[start_ns, end_ns) since the start of the point, and why not all of it."""

    start_ns: int
    end_ns: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / NS_PER_SECOND

    def holds(self, t_ns: int | None) -> bool:
        """Whether a stamp lies inside; an unknown stamp does not."""
        return t_ns is not None and self.start_ns <= t_ns < self.end_ns


def steady_window(
    records: Sequence[Record], end_ns: int, warmup: str | float, concurrency: int | None
) -> Window:
    """The window of a point whose sending ended at ``end_ns``.

    ``warmup`` is seconds, ``none``, ``mlenergy`` (as long as the number in flight is at its peak: the
    rule of the ML.ENERGY benchmark) or ``auto``: one service time in a closed loop, where all begin at
    once, then MSER over batch means of latency (White 1997), which may drop at most half.
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
    """When the first request that began at the start had ended."""
    return min((at + lasted for at, lasted in ends), default=0)


def _mser_ns(pairs: Sequence[tuple[int, int]]) -> int:
    """Start that minimises the standard error of the mean of what remains (MSER, batched)."""
    ordered = sorted(pairs)
    size = max(1, len(ordered) // _BATCHES)
    count = len(ordered) // size
    values = np.array([lasted for _, lasted in ordered[: count * size]], dtype=np.float64)
    means = values.reshape(count, size).mean(axis=1)
    score = [float(np.var(means[cut:])) / (count - cut) for cut in range(count // 2 + 1)]
    best = int(np.argmin(score))
    # Noise alone always lowers the score a little: only a clear gain is a warm-up.
    return ordered[best * size][0] if best and score[best] < 0.8 * score[0] else 0


def peak_window(records: Sequence[Record], end_ns: int) -> Window:
    """From when the number in flight first reaches its peak until it last leaves it."""
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
    """Peak number in flight, and its mean over the window (by scheduled times)."""
    starts = np.array([r.scheduled_ns for r in records], dtype=np.int64)
    ends = np.array([window.end_ns if r.end_ns is None else r.end_ns for r in records], np.int64)
    if not len(starts) or window.seconds <= 0:
        return 0, None
    times = np.concatenate([starts, ends])
    # At equal stamps an end comes before a start.
    order = np.lexsort((np.repeat([1, 0], len(starts)), times))
    level = np.cumsum(np.repeat([1, -1], len(starts))[order])
    inside = np.clip(ends, window.start_ns, window.end_ns) - np.clip(starts, window.start_ns, window.end_ns)
    return int(level.max()), float(inside.sum()) / (window.end_ns - window.start_ns)


def drift_seconds_per_second(records: Sequence[Record], window: Window) -> float | None:
    """Slope of latency over time if it is significant (3 standard errors of batch means), else None.

    A queue that only grows has no steady state, however good its first seconds look.
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
