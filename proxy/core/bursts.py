"""Bursts: from the arrival times of output chunks to the steps of the engine.

A batching engine emits for every decoding stream at the end of a step, so chunks come in bursts. A burst
ends at a gap, or when a stream that already emitted in it emits again. The gap that separates bursts is
learned from the data: between the many small distances within bursts and the few large ones between
them lies a valley, found near the rank that the streams' own pace predicts. Where the network blurs the
valley, bursts that follow each other too fast to be two steps, and have no stream in common, are one.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_RANK_BAND: Final = (0.5, 2.0)
_SAMPLE: Final = 20_000  # distances looked at for the valley
_LEAST_STEP: Final = 0.5  # of the streams' pace: no step is shorter


def by_stream(stream: Ints) -> Ints:
    """Order that brings each stream's events together, in time, (E,)."""
    # numpy sorts small integers by radix, in linear time.
    small = len(stream) and int(stream.max()) < 1 << 15
    return np.argsort(stream.astype(np.int16) if small else stream, kind="stable")


def previous_of_stream(stream: Ints, order: Ints) -> Ints:
    """Index of each event's predecessor in its own stream, -1 for a stream's first; stamps in order."""
    previous = np.full(len(stream), -1, np.int64)
    sorted_stream = stream[order]
    same = sorted_stream[1:] == sorted_stream[:-1]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def paces(t: Floats, tokens: Floats, previous: Ints) -> Floats:
    """Seconds a token of each event since its stream's last, (E,); NaN for a stream's first."""
    since = np.where(previous >= 0, t - t[previous], np.nan)
    return np.asarray(since / np.maximum(tokens, 1.0), dtype=float)


def separating_gap(t: Floats, step_seconds: float) -> float:
    """The distance, in seconds, above which two chunks belong to different bursts.

    The widest valley (in ratio) among the sorted distances, near the number of steps that fit into the time.
    """
    gaps = np.sort(np.diff(t[-_SAMPLE:]))[::-1]
    gaps = gaps[gaps > 0.0]
    if len(gaps) < 2:
        return 0.3 * step_seconds
    busy = np.minimum(gaps, 4.0 * step_seconds).sum()
    expected = busy / step_seconds
    low = min(int(_RANK_BAND[0] * expected), len(gaps) - 2)
    high = min(int(_RANK_BAND[1] * expected) + 1, len(gaps) - 1)
    ratios = gaps[low:high] / np.maximum(gaps[low + 1 : high + 1], 1e-7)
    if not len(ratios) or high >= len(gaps) - 1:
        return float(min(0.3 * step_seconds, gaps[low]))
    best = low + int(np.argmax(ratios))
    return float(np.sqrt(gaps[best] * max(gaps[best + 1], 1e-7)))


def bursts(t: Floats, previous: Ints, pace: Floats, gap_seconds: float) -> Ints:
    """The burst number of each event, from 0; stamps in order. ``pace``: as by :func:`paces`."""
    if not len(t):
        return np.empty(0, np.int64)
    starts = np.concatenate([[True], np.diff(t) > gap_seconds])
    first = np.flatnonzero(starts)
    newest_previous = np.maximum.accumulate(previous)
    # Bursts in which a stream emits again are cut there; in clean traffic there are none.
    ends = np.append(first[1:], len(t))
    mixed = newest_previous[ends - 1] >= first
    for begin, end in zip(first[mixed].tolist(), ends[mixed].tolist(), strict=True):
        _cut(starts, previous, begin, end)
    #_join(starts, t, previous, pace)
    return np.cumsum(starts) - 1


def _cut(starts: NDArray[np.bool_], previous: Ints, begin: int, end: int) -> None:
    """Cut one burst wherever a stream emits again."""
    for index in range(begin, end):
        if previous[index] >= begin:
            starts[index] = True
            begin = index


def _join(starts: NDArray[np.bool_], t: Floats, previous: Ints, pace: Floats) -> None:
    """Join bursts that no engine could have computed one after the other."""
    usual = float(np.nanmedian(pace)) if np.isfinite(pace).any() else 0.0
    while True:
        first = np.flatnonzero(starts)
        newest = np.maximum.reduceat(previous, first)
        known = np.isfinite(pace)
        count = np.add.reduceat(known.astype(float), first)
        local = np.where(
            count > 0, np.add.reduceat(np.where(known, pace, 0.0), first) / np.maximum(count, 1.0), usual
        )
        ends = t[np.append(first[1:], len(t)) - 1]
        short = ends[1:] - t[first[:-1]] < _LEAST_STEP * np.minimum(local[1:], local[:-1])
        joined = np.flatnonzero(short & (newest[1:] < first[:-1])) + 1
        joined = joined[np.diff(joined, prepend=-2) > 1]  # of neighbours one at a time
        if not len(joined):
            return
        starts[first[joined]] = False
