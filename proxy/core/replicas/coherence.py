"""Coherence: which streams are served by the same engine, from the times of their chunks.

A batching engine emits one chunk of every decoding stream at the end of each step. Chunks of two streams of
one engine therefore come together, whatever the length of the steps; those of two engines fall anywhere into
each other's steps. The distance of a chunk to the nearest chunk of another stream, as a share of the other's
interval, is near 0 for the first kind, and has a mean of 1/4 for the second. The delays of a network lift
the first, but never to the second unless they are longer than steps.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from proxy.core.reconstruct.bursts import Floats, Ints

APART: Final = 0.25  # mean distance of chunks of unrelated streams: uniform over half an interval
LEAST_CHUNKS: Final = 8  # of the overlap of two streams, below which their distance is not defined
_CHUNKS: Final = 160  # compared at most of one pair of streams
_LEAST_APART: Final = 0.15  # mean distance between engines; less is one engine
_CONTRAST: Final = 0.75  # the distance within engines must be below this part of that between them
_LEAST_MEMBERS: Final = 2  # streams of an engine, when engines are looked for


def distance(one: Floats, other: Floats) -> float:
    """Return the mean distance of the chunks of a stream to those of another, relative to its intervals.

    Args:
        one: times of a stream's chunks, ascending (any unit).
        other: likewise of another stream.

    Returns:
        A value from 0 (together) to 0.5; NaN where fewer than ``LEAST_CHUNKS`` chunks of ``one`` lie within
        the life of ``other``.
    """
    if len(other) < LEAST_CHUNKS:
        return np.nan
    first, last = np.searchsorted(one, [other[0], other[-1]])
    inside = one[first:last]
    if len(inside) < LEAST_CHUNKS:
        return np.nan
    if len(inside) > _CHUNKS:
        inside = inside[:: len(inside) // _CHUNKS]
    after = np.clip(np.searchsorted(other, inside, side="right"), 1, len(other) - 1)
    left, right = other[after - 1], other[after]
    place = (inside - left) / np.maximum(right - left, 1)
    return float(np.mean(np.minimum(place, 1.0 - place)))


def distances(streams: list[Floats]) -> Floats:
    """Return the distances of all pairs of streams, (S, S), symmetric; NaN where they hardly overlap."""
    count = len(streams)
    found = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i):
            pair = np.array([distance(streams[i], streams[j]), distance(streams[j], streams[i])])
            known = pair[~np.isnan(pair)]
            if len(known):
                found[i, j] = found[j, i] = float(known.mean())
    return found


def engines_among(apart: Floats, most: int) -> Ints | None:
    """Return the engine of each stream, (S,), or None where one engine explains the distances.

    Average linkage: the two groups of streams with the least mean distance are joined until the least one is
    above the threshold between the two kinds of distances (Otsu's: the largest variance between classes).

    Args:
        apart: distances of the streams, (S, S), NaN where not known.
        most: engines that there can be.
    """
    known = np.sort(apart[np.tril_indices(len(apart), -1)])
    known = known[~np.isnan(known)]
    if len(known) < 3:
        return None
    threshold, within, between = _classes(known)
    if between < _LEAST_APART or within > _CONTRAST * between:
        return None
    groups = [[index] for index in range(len(apart))]
    while len(groups) > 1:
        means = np.array([[_mean(apart, a, b) if a is not b else np.inf for b in groups] for a in groups])
        i, j = divmod(int(np.argmin(means)), len(groups))
        if not means[i, j] < threshold:
            break
        groups[min(i, j)] += groups.pop(max(i, j))
    groups = sorted((g for g in groups if len(g) >= _LEAST_MEMBERS), key=len, reverse=True)
    if not 2 <= len(groups) <= most:
        return None
    labels = np.full(len(apart), -1, np.int64)
    for engine, members in enumerate(groups):
        labels[members] = engine
    return labels


def _classes(values: Floats) -> tuple[float, float, float]:
    """Return the threshold between two classes of ascending values, and the means of both."""
    count = np.arange(1, len(values))
    total = np.cumsum(values)
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (len(values) - count)
    best = int(np.argmax(count * (len(values) - count) * (high - low) ** 2))
    return 0.5 * float(low[best] + high[best]), float(low[best]), float(high[best])


def _mean(apart: Floats, a: list[int], b: list[int]) -> float:
    pairs = apart[np.ix_(a, b)]
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else np.inf


def together(mean: Sequence[float], most: float) -> int:
    """Return the engine that a stream is nearest to, if it is nearer than ``most``, else -1.

    Args:
        mean: mean distance to the streams of each engine; NaN where the engine served nobody meanwhile.
        most: the distance up to which streams are taken to be of one engine.
    """
    known = [(distance, engine) for engine, distance in enumerate(mean) if distance < most]
    return min(known)[1] if known else -1
