"""Answers sent whole: where in time each of their tokens was emitted, though nobody saw it.

Such an answer was in every step from its first token to its end. The steps are seen in the answers streamed
beside it; where there are none, they follow each other at the usual pace. Written into the timeline as if
they had been streamed, they are steps of the answers placed after them, too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Track
from proxy.core.reconstruct.bursts import Floats, Ints
from proxy.core.reconstruct.unread import ARRIVALS, counted_tokens

USAGE: Final = "usage"  # evidence of a response that was not streamed and reported its tokens
_LEAST_SECONDS: Final = 1e-4  # of a step: no engine is that fast


def unseen(group: Group, tracks: Sequence[Track]) -> list[Track]:
    """Ended answers of which no output was seen and whose tokens were counted, by their ends."""
    whole = [t for t in tracks if not group.streams.chunks[t.slot] and counted_tokens(t) is not None]
    return sorted(whole, key=lambda t: t.end_ns or 0)


class Clock:
    """Steps known, in order of time, and those of them that others may lie before.

    ``stamps`` in seconds after the group's ``kept_ns``: shares must not depend on where a clock began. Lists,
    not arrays: each of thousands of answers looks at a few of them, and adds a few.
    """

    __slots__ = ("loose", "stamps")

    def __init__(self, stamps: Floats, joined: NDArray[np.bool_]) -> None:
        """``joined``, (B,): whether no other step can lie between it and the one before."""
        first = np.diff(stamps, prepend=-np.inf) > 0.0
        self.stamps: list[float] = stamps.tolist()
        self.loose: set[float] = set(stamps[first & ~joined].tolist())

    def within(self, start: float, end: float) -> list[float]:
        """Steps in (start, end]."""
        first = bisect_right(self.stamps, start)
        return self.stamps[first : bisect_right(self.stamps, end, first)]

    def add(self, stamps: list[float]) -> None:
        """Know these steps, too, which are in order; what they fill is filled."""
        if not stamps:
            return
        first = bisect_left(self.stamps, stamps[0])
        last = bisect_right(self.stamps, stamps[-1], first)
        known = self.stamps[first:last]
        fresh = set(stamps).difference(known)
        if fresh:
            self.stamps[first:last] = sorted(known + list(fresh))


def reveal(group: Group, whole: Sequence[Track], clock: Clock, step_seconds: float) -> None:
    """Insert the outputs of answers sent whole, which are given by their ends."""
    if not whole:
        return
    seconds: list[float] = []
    counts = []
    for track in whole:
        emitted = _emitted(track, group.kept_ns, clock, step_seconds)
        if track.evidence != ARRIVALS:  # it was guessed while it ran
            track.evidence = USAGE
        clock.add(emitted)
        seconds += emitted
        counts.append(len(emitted))
    stamps = group.kept_ns + np.round(np.array(seconds) * 1e9).astype(np.int64)
    slots = np.repeat([track.slot for track in whole], counts)
    streams = group.streams
    stamps = np.clip(stamps, streams.start_ns[slots] + 1, streams.end_ns[slots])
    ones = np.ones(len(slots), np.int64)
    streams.see(stamps, slots, ones)
    late = stamps > group.kept_ns
    np.add.at(streams.forgotten, slots[~late], ones[~late])
    group.outputs.insert(stamps[late], slots[late], ones[late])


def placed_by_guess(
    tracks: Sequence[Track], request: Ints, burst: Ints, now: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which non-streamed responses lie mostly in steps without a streamed token, (R,).

    The times of such steps, and the requests in them, are a guess: the more requests run at once, the less is
    known. Responses without output tokens (embeddings) are not included: their work is their prompt.
    ``request`` (index into ``tracks``), ``burst`` and ``now`` (within the block), of each output, (E,).
    """
    whole = np.array([t.evidence == USAGE and bool(t.end and t.end.completion_tokens) for t in tracks], bool)
    if not whole.any():
        return whole
    sent_whole = np.array([track.evidence == USAGE for track in tracks], bool)[request]
    shown = np.zeros(int(burst.max(initial=-1)) + 1, bool)
    shown[burst[~sent_whole]] = True
    mine = whole[request] & now
    count = np.bincount(request[mine], minlength=len(tracks))
    unshown = np.bincount(request[mine & ~shown[burst]], minlength=len(tracks))
    return np.asarray(2 * unshown > count, dtype=bool)


def _emitted(track: Track, origin_ns: int, clock: Clock, step: float) -> list[float]:
    """Stamps (s after the origin) of each token of an answer."""
    start, end = (track.start_ns - origin_ns) / 1e9, ((track.end_ns or 0) - origin_ns) / 1e9
    # Of more than any engine makes, each chunk stands for several.
    count = min(counted_tokens(track) or 1, max(int((end - start) / _LEAST_SECONDS), 1))
    if track.span is not None and track.span.first_token_ns is not None:
        start = max(start, min((track.span.first_token_ns - origin_ns) / 1e9 - 0.5 * step, end))
    return ticks(clock, start, end, count, step)


def ticks(clock: Clock, start: float, end: float, count: int, step: float) -> list[float]:
    """``count`` stamps up to ``end``.

    The steps seen of others, and, where there can have been more, at the usual pace.
    """
    seen = clock.within(start, end + 0.5 * step)
    if count <= len(seen):
        return seen[len(seen) - count :]
    if not seen:
        each = (end - start) / count
        return [start + each * number for number in range(1, count)] + [end]
    missing = count - len(seen)
    right, joined = max(end, seen[-1]), False
    fill: list[float] = []
    for left in (*reversed(seen), start):
        if not joined:
            room = max(round((right - left) / step) - 1, 0)
            take = min(room, missing)
            each = (right - left) / (room + 1.0)
            fill += [right - each * number for number in range(1, int(take) + 1)]
            missing -= take
            if missing <= 0:
                break
        right, joined = left, left not in clock.loose
    return sorted(seen + fill)
