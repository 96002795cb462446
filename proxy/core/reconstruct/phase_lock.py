"""Phase lock: steps where the network delays chunks by about as long as a step takes.

Bursts then run into each other, but each stream still counts: between two of its chunks lie as many steps
as it emitted tokens. The mean rate of all streams, integrated, is a clock of steps in which the delays
of single chunks average out; each stream keeps one offset to it, for all of its life.
"""

import heapq
from typing import Final

import numpy as np

from proxy.core.reconstruct.bursts import Floats, Ints, by_stream, previous_of_stream

_ODD_SHARE: Final = 0.003  # of chunks that are further from their stream's last than its tokens: blurred


def blurred(burst: Ints, steps: Floats, expected: Floats, previous: Ints) -> bool:
    """Whether bursts contradict what the streams count: more of them than steps between two chunks.

    ``steps`` (E,) as counted, ``expected`` on the mean, where merged chunks hide some. Bursts of nothing but
    first tokens do not count: engines that compute prompts first stop decoding then.
    """
    again = np.flatnonzero(previous >= 0)
    if not len(again):
        return False
    decoding = np.zeros(int(burst[-1]) + 1)
    decoding[burst[again]] = 1.0
    step = np.cumsum(decoding)[burst]
    apart = step[again] - step[previous[again]]
    hidden = float(np.mean(expected[again] - steps[again]))
    return float(np.mean(apart > np.round(steps[again]))) > _ODD_SHARE + max(hidden, 0.0)


def steps_passed(t: Floats, expected: Floats, previous: Ints) -> Floats:
    """Steps since its stream's last chunk, (E,), by the clock of all streams; 1 for a stream's first."""
    clock = _clock(t, expected, previous)
    return np.where(previous >= 0, clock - clock[previous], 1.0)


def locked(t: Floats, stream: Ints, steps: Floats) -> Ints:
    """The step of each event by its stream's own count, numbered in order of time, (E,); stamps in order.

    ``steps`` (E,): between a chunk and its stream's last one.
    """
    order = by_stream(stream)
    previous = previous_of_stream(stream, order)
    count = _counted(np.round(steps), stream, order)
    clock = _clock(t, np.round(steps), previous)
    streams = int(stream.max()) + 1
    seen = np.bincount(stream, minlength=streams)
    offset = np.bincount(stream, clock - count, minlength=streams) / np.maximum(seen, 1)
    step = count + _whole_offsets(stream, offset)[stream]
    _, inverse = np.unique(np.round(step).astype(np.int64), return_inverse=True)
    stamps = np.bincount(inverse, t) / np.bincount(inverse)
    rank = np.empty(len(stamps), np.int64)
    rank[np.argsort(stamps, kind="stable")] = np.arange(len(stamps))
    return rank[inverse]


def _counted(steps: Floats, stream: Ints, order: Ints) -> Floats:
    """Steps of its stream up to and with each event, (E,)."""
    running = np.cumsum(steps[order])
    count = np.bincount(stream)
    begin = np.cumsum(count) - count
    before = np.concatenate([[0.0], running])[begin]
    total = np.empty(len(steps))
    total[order] = running - before[stream[order]]
    return total


def _clock(t: Floats, steps: Floats, previous: Ints) -> Floats:
    """Steps until each event by the mean rate of the streams active, (E,); idle time counts as two."""
    again = np.flatnonzero(previous >= 0)
    before = previous[again]
    rate = steps[again] / np.maximum(t[again] - t[before], 1e-6)
    change, active = np.zeros(len(t)), np.zeros(len(t))
    change[again] -= rate
    active[again] -= 1.0
    change[before] += rate
    active[before] += 1.0
    streams = np.round(np.cumsum(active))[:-1]
    rates = np.cumsum(change)[:-1] / np.maximum(streams, 1.0)
    passed = np.where(streams > 0.0, rates * np.diff(t), 2.0)
    return np.concatenate([[0.0], np.cumsum(passed)])


def _whole_offsets(stream: Ints, offset: Floats) -> Floats:
    """Offsets rounded to whole steps, each against the streams that are active when it begins, (S,)."""
    ids, first = np.unique(stream, return_index=True)
    last = len(stream) - 1 - np.unique(stream[::-1], return_index=True)[1]
    whole = np.zeros(len(offset))
    alive: list[tuple[int, float]] = []  # (last event, fraction)
    total = 0.0
    for index in np.argsort(first, kind="stable").tolist():
        while alive and alive[0][0] < first[index]:
            total -= heapq.heappop(alive)[1]
        own = float(offset[ids[index]])
        phase = total / len(alive) if alive else own - round(own)
        whole[ids[index]] = round(own - phase)
        fraction = own - whole[ids[index]]
        heapq.heappush(alive, (int(last[index]), fraction))
        total += fraction
    return whole
