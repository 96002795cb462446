"""Streams beside each other: where the chunks of one lie in the intervals of those that ran at the time.

All times are nanoseconds as floats. A stream is the times of its chunks after the first one, ascending: the
first chunk may be another engine's, where prompts are computed apart.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from proxy.core.activity.tracks import Group
from proxy.core.numerics.order_statistics import median
from proxy.core.reconstruct.bursts import Floats, by_stream
from proxy.core.replicas.coherence import APART, LEAST_CHUNKS, distance

Life = tuple[float, float, Floats]  # of a stream: its first chunk, its last one, and all of them

_PARTNERS: Final = 16  # of each engine that a stream is compared with
_BESIDE: Final = 2  # streams of an engine that ran at a moment, at least, to compare it with
_LEAST_NS: Final = 1e4  # nearer chunks are as near
_FIRSTS: Final = 24  # first chunks, below which roles are not judged
_APART: Final = 0.17  # distance of first chunks to the chunks of others, from which they are another engine's
_CLOSE: Final = 0.65  # of that: the distance of later chunks must be less
_DISTURBED: Final = 1.5  # times longer: intervals of decoding in which the same engine computed a prompt


def life_of(chunks: Floats) -> Life:
    """Return the first and last of a stream's chunks, and all of them."""
    return float(chunks[0]), float(chunks[-1]), chunks


def mean_distance(stream: Floats, others: list[Life]) -> float:
    """Return the mean distance of a stream to those of an engine that ran beside it; NaN for none."""
    first, last, _ = life_of(stream)
    near = [(min(end, last) - max(begin, first), other) for begin, end, other in others]
    near = sorted((p for p in near if p[0] > 0.0 and p[1] is not stream), key=lambda pair: -pair[0])
    found = np.array([distance(stream, other) for _, other in near[:_PARTNERS]])
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else np.nan


def mean_at(stamps: list[float], others: list[Life]) -> float:
    """Return the mean distance of moments to the chunks of streams that ran then."""
    found = [
        _apart_at(stamp, other)
        for stamp in stamps
        for other in [o for begin, end, o in others if begin <= stamp <= end][-_PARTNERS:]
    ]
    return float(np.mean(found)) if found else APART


def clearly_nearest(stamps: Iterable[float], partners: list[list[Life]], most: float) -> int:
    """Return the engine in whose steps moments lie, if the others are farther by a factor, else -1.

    In most steps of an engine some of its streams emits, so the nearest chunk of any of them is compared: its
    distance, as a geometric mean, since in some steps none did. Only moments at which all engines had streams
    count.
    """
    near = np.array([[_nearest_chunk(float(stamp), others) for stamp in stamps] for others in partners])
    near = near[:, ~np.isnan(near).any(axis=0)]
    if not near.size:
        return -1
    means = np.log(near).mean(axis=1)
    best, second = np.argsort(means, kind="stable")[:2]
    return int(best) if means[best] < np.log(most) + means[second] else -1


def _nearest_chunk(stamp: float, others: list[Life]) -> float:
    """Return the distance (ns) of a moment to the nearest chunk; NaN where hardly a stream ran."""
    beside = [other for begin, end, other in others if begin <= stamp <= end]
    if len(beside) < _BESIDE:
        return np.nan
    places = [int(np.searchsorted(other, stamp)) for other in beside]
    near = (
        abs(stamp - float(o[i])) for o, at in zip(beside, places, strict=True) for i in (max(at - 1, 0), at)
    )
    return max(min(near), _LEAST_NS)


def _apart_at(stamp: float, other: Floats) -> float:
    """Return the distance of one moment to a stream's nearest chunk, relative to its interval there."""
    after = int(np.clip(np.searchsorted(other, stamp, side="right"), 1, max(len(other) - 1, 1)))
    if len(other) < 2:
        return APART
    left, right = float(other[after - 1]), float(other[after])
    return min(abs(stamp - left), abs(right - stamp)) / max(right - left, 1.0)


def prefill_is_apart(group: Group, chunks: dict[int, Floats]) -> bool:
    """Return whether first chunks come apart from the chunks of other streams, without disturbing these."""
    firsts, laters, around, usual = [], [], [], []
    streams = [(s, t) for s, t in chunks.items() if len(t) > LEAST_CHUNKS]
    for slot, stamps in streams:
        first = float(group.streams.first_ns[slot])
        beside = [t for s, t in streams if s != slot and t[0] < first < t[-1] and t[0] < stamps[2] < t[-1]]
        for other in beside[:2]:
            firsts.append(_apart_at(first, other))
            laters.append(_apart_at(float(stamps[2]), other))
            after = int(np.searchsorted(other, first, side="right"))
            around.append(other[after] - other[after - 1])
            usual.append(median(np.diff(other)))
    if len(firsts) < _FIRSTS:
        return False
    apart, close = float(np.mean(firsts)), float(np.mean(laters))
    disturbed = median(np.array(around) / np.array(usual))
    return apart > _APART and close < _CLOSE * apart and disturbed < _DISTURBED


def later_chunks(group: Group) -> dict[int, Floats]:
    """Return the times (ns) of the chunks of each slot after its first one."""
    outputs = group.outputs
    later = outputs.t_ns != group.streams.first_ns[outputs.slot]
    slot, stamp = outputs.slot[later], outputs.t_ns[later].astype(float)
    order = by_stream(slot)
    slot, stamp = slot[order], stamp[order]
    starts = np.flatnonzero(np.diff(slot, prepend=-1))
    parts = np.split(stamp, starts[1:]) if len(starts) else []
    return dict(zip(slot[starts].tolist(), parts, strict=True))


def running_at(chunks: dict[int, Floats], moment: float) -> list[int]:
    """Return the slots of the streams that run at a moment and have chunks enough, those with most first."""
    running = [s for s, t in chunks.items() if t[0] <= moment <= t[-1] and len(t) > 2 * LEAST_CHUNKS]
    return sorted(running, key=lambda slot: (-len(chunks[slot]), slot))
