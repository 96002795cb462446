"""Clustering: which step each output event belongs to.

By bursts (``bursts``), and where the network blurs these by the streams' own count (``phase_lock``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.core.numerics.order_statistics import median
from proxy.core.reconstruct.bursts import (
    Floats,
    Ints,
    bursts,
    by_stream,
    paces,
    previous_of_stream,
    separating_gap,
    steps_apart,
)
from proxy.core.reconstruct.cells import EngineProfile
from proxy.core.reconstruct.chunk_tokens import Chunks
from proxy.core.reconstruct.phase_lock import blurred, locked, steps_passed


@dataclass(frozen=True, slots=True)
class Clustered:
    """Of each event (E,): its step, the stream's event before it (-1: none); the order by stream.

    ``stamps`` (B,): when each step ended. ``speculative``: whether a chunk of several tokens is one step.
    """

    burst: Ints
    previous: Ints
    order: Ints
    stamps: Floats
    speculative: bool = False


def streams_of(request: Ints, samples: Ints) -> Ints:
    """Return the stream of each chunk, (E,), given its request and how many answers each request has, (R,).

    A request for several answers emits a chunk of each in a step. Which chunk is of which answer is not seen;
    taking turns is right for as long as all of them run.
    """
    several = samples > 1
    if not several.any():
        return request
    stream = request.copy()
    for index in np.flatnonzero(several).tolist():
        own = np.flatnonzero(request == index)
        stream[own] += len(samples) * (np.arange(len(own)) % int(samples[index]))
    return stream


def clustered(
    t: Floats, stream: Ints, chunks: Chunks, profile: EngineProfile, certain: NDArray[np.bool_] | None = None
) -> Clustered:
    """Assign events to steps; stamps (s) in order.

    ``certain`` (E,): which events are known to be of their stream; None: all are.
    """
    order = by_stream(stream)
    previous = previous_of_stream(stream, order)
    apart = steps_apart(t, chunks.counted, previous)
    speculative = apart is not chunks.counted and bool((chunks.counted > 1.0).any())
    pace = paces(t, apart, previous)
    known = pace > 0.0  # chunks read at once have one stamp
    if known.any():
        profile.step_seconds = median(pace[known])
        profile.gap_seconds = separating_gap(t, profile.step_seconds)
    burst = bursts(t, previous, profile.gap_seconds)
    expected = np.where(chunks.uncertain, chunks.expected, apart)
    # Streams that are guessed do not contradict bursts, unless there are no others.
    judged = previous if certain is None or not certain.any() else np.where(certain, previous, -1)
    if blurred(burst, apart, expected, judged):
        if chunks.uncertain.any():
            passed = np.round(steps_passed(t, expected, previous))
            apart = np.where(chunks.uncertain, np.maximum(passed, 1.0), apart)
        burst = locked(t, stream, apart)
        if chunks.uncertain.any():
            return Clustered(burst, previous, order, _means(t, burst), speculative)
    return Clustered(burst, previous, order, _earliest(t, burst), speculative)


def _earliest(t: Floats, burst: Ints) -> Floats:
    """Return the first stamp of each step: delays are never negative, so it is nearest to the end."""
    if not len(t):
        return np.empty(0)
    stamps = np.full(int(burst.max()) + 1, np.inf)
    np.minimum.at(stamps, burst, t)
    return np.maximum.accumulate(stamps)


def _means(t: Floats, burst: Ints) -> Floats:
    """Where chunks may have gone to a wrong step, the first to come may be another's."""
    return np.asarray(np.bincount(burst, t) / np.bincount(burst), dtype=float)
