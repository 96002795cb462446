"""Bursts: from the arrival times of output chunks to the steps of the engine.

A batching engine emits for every decoding stream at the end of a step, so chunks come in bursts. A burst
ends at a gap, or when a stream that already emitted in it emits again. The gap that separates bursts is
learned from the data: between the many small distances within bursts and the few large ones between
them lies a valley, found near the rank that the streams' own pace predicts.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_RANK_BAND: Final = (0.5, 2.0)


def previous_of_stream(stream: Ints) -> Ints:
    """Index of each event's predecessor in its own stream, -1 for a stream's first; stamps in order."""
    order = np.argsort(stream, kind="stable")
    sorted_stream = stream[order]
    previous = np.full(len(stream), -1, np.int64)
    same = sorted_stream[1:] == sorted_stream[:-1]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def pace(t: Floats, tokens: Floats, previous: Ints) -> float | None:
    """Median seconds from token to token within a stream; None where no stream emitted twice."""
    again = previous >= 0
    if not again.any():
        return None
    return float(np.median((t[again] - t[previous[again]]) / np.maximum(tokens[again], 1.0)))


def separating_gap(t: Floats, step_seconds: float) -> float:
    """The distance, in seconds, above which two chunks belong to different bursts.

    The widest valley (in ratio) among the sorted distances, near the number of steps that fit into the time.
    """
    gaps = np.sort(np.diff(t))[::-1]
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


def burst_of_event(t: Floats, previous: Ints, gap_seconds: float) -> Ints:
    """The burst number of each event, from 0; stamps in order."""
    if not len(t):
        return np.empty(0, np.int64)
    starts = np.concatenate([[True], np.diff(t) > gap_seconds])
    newest_previous = np.maximum.accumulate(previous)
    first = np.flatnonzero(starts)
    ends = np.append(first[1:], len(t))
    # Bursts in which a stream emits again are cut there; in clean traffic there are none.
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
