"""Clustering: which step each output event belongs to.

By bursts (``bursts``), and where the network blurs these by the streams' own count (``lock``).
"""

from dataclasses import dataclass

import numpy as np

from proxy.core.bursts import (
    Floats,
    Ints,
    bursts,
    by_stream,
    paces,
    previous_of_stream,
    separating_gap,
    steps_apart,
)
from proxy.core.cells import Habits
from proxy.core.lock import blurred, locked, steps_passed
from proxy.core.sizes import Chunks


@dataclass(frozen=True, slots=True)
class Clustered:
    """Of each event (E,): its step, the stream's event before it (-1: none); the order by stream.

    ``stamps`` (B,): when each step ended.
    """

    burst: Ints
    previous: Ints
    order: Ints
    stamps: Floats


def clustered(t: Floats, stream: Ints, chunks: Chunks, habits: Habits) -> Clustered:
    """Steps of events; stamps (s) in order."""
    order = by_stream(stream)
    previous = previous_of_stream(stream, order)
    apart = steps_apart(t, chunks.counted, previous)
    pace = paces(t, apart, previous)
    known = pace > 0.0  # chunks read at once have one stamp
    if known.any():
        habits.step_seconds = float(np.median(pace[known]))
        habits.gap_seconds = separating_gap(t, habits.step_seconds)
    burst = bursts(t, previous, habits.gap_seconds)
    expected = np.where(chunks.uncertain, chunks.expected, apart)
    if blurred(burst, apart, expected, previous):
        if chunks.uncertain.any():
            passed = np.round(steps_passed(t, expected, previous))
            apart = np.where(chunks.uncertain, np.maximum(passed, 1.0), apart)
        burst = locked(t, stream, apart)
        if chunks.uncertain.any():
            return Clustered(burst, previous, order, _means(t, burst))
    return Clustered(burst, previous, order, _earliest(t, burst))


def _earliest(t: Floats, burst: Ints) -> Floats:
    """Delays are never negative: the first to come is nearest to the step's end."""
    if not len(t):
        return np.empty(0)
    stamps = np.full(int(burst.max()) + 1, np.inf)
    np.minimum.at(stamps, burst, t)
    return np.maximum.accumulate(stamps)


def _means(t: Floats, burst: Ints) -> Floats:
    """Where chunks may have gone to a wrong step, the first to come may be another's."""
    return np.asarray(np.bincount(burst, t) / np.bincount(burst), dtype=float)
