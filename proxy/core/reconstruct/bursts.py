"""Bursts: from the arrival times of output chunks to the steps of the engine.

A batching engine emits for every decoding stream at the end of a step, so chunks come in bursts. A burst
ends at a gap, or when a stream that already emitted in it emits again. The gap that separates bursts is
learned from the data: between the many small distances within bursts and the few large ones between
them lies a valley, found near the rank that the streams' own pace predicts. Where the network blurs
the valley, the streams' own count tells more (``phase_lock``).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.numerics.order_statistics import median

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_RANK_BAND: Final = (0.5, 2.0)
_SAMPLE: Final = 20_000  # distances looked at for the valley
_FEW: Final = 10
_MERGED: Final = 1.5  # times longer than after one token, at least, is the wait for a merged chunk


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


def steps_apart(t: Floats, tokens: Floats, previous: Ints) -> Floats:
    """Steps between each chunk and its stream's last, (E,): its tokens; or one, in speculative decoding.

    Merged chunks of several tokens come as many steps after the last; speculated ones come as soon as others.
    """
    again = np.flatnonzero(previous >= 0)
    several = again[tokens[again] > 1.0]
    single = again[tokens[again] == 1.0]
    if len(several) < _FEW or len(single) < _FEW:
        return tokens
    since = t - t[previous]
    speculative = median(since[several]) < _MERGED * median(since[single])
    return np.ones(len(tokens)) if speculative else tokens


def paces(t: Floats, steps: Floats, previous: Ints) -> Floats:
    """Seconds a step of each event since its stream's last, (E,); NaN for a stream's first."""
    since = np.where(previous >= 0, t - t[previous], np.nan)
    return np.asarray(since / np.maximum(steps, 1.0), dtype=float)


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


def bursts(t: Floats, previous: Ints, gap_seconds: float) -> Ints:
    """The burst number of each event, from 0; stamps in order."""
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
    return np.cumsum(starts) - 1


def _cut(starts: NDArray[np.bool_], previous: Ints, begin: int, end: int) -> None:
    """Cut one burst wherever a stream emits again."""
    for index in range(begin, end):
        if previous[index] >= begin:
            starts[index] = True
            begin = index
