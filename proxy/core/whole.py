"""Answers sent whole: where in time each of their tokens was emitted, though nobody saw it.

Such an answer was in every step from its first token to its end. The steps are seen in the answers streamed
beside it; where there are none, they follow each other at the usual pace. Written into the timeline as if
they had been streamed, they are steps of the answers placed after them, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.core.bursts import Floats
from proxy.core.tracks import Group, Track


def unseen(group: Group, tracks: Sequence[Track]) -> list[Track]:
    """Ended answers of which no output was seen, by their ends."""
    whole = [t for t in tracks if t.end is not None and not group.streams.chunks[t.slot] and _emits(t)]
    return sorted(whole, key=lambda t: t.end_ns or 0)


@dataclass(frozen=True, slots=True)
class Clock:
    """Steps known, and for each whether no other can lie between it and the one before.

    ``stamps`` in seconds after the group's ``kept_ns``: shares must not depend on where a clock began.
    """

    stamps: Floats
    joined: NDArray[np.bool_]

    def slice(self, start: float, end: float) -> "Clock":
        """Steps in (start, end]."""
        first, last = np.searchsorted(self.stamps, (start, end), side="right").tolist()
        return Clock(self.stamps[first:last], self.joined[first:last])

    def add(self, stamps: Floats) -> "Clock":
        """With more steps, in order of time; what they fill is filled."""
        places = np.searchsorted(self.stamps, stamps)
        known = np.append(self.stamps, np.nan)[places] == stamps
        fresh = np.append(True, np.diff(stamps) > 0.0)[: len(stamps)] & ~known
        places, stamps = places[fresh], stamps[fresh]
        return Clock(np.insert(self.stamps, places, stamps), np.insert(self.joined, places, True))


def reveal(group: Group, whole: Sequence[Track], clock: Clock, step_seconds: float) -> None:
    """Insert the outputs of answers sent whole, which are given by their ends."""
    if not whole:
        return
    emitted = []
    # None of the answers to come looks further back than the first of them began.
    starts = np.minimum.accumulate([(track.start_ns - group.kept_ns) / 1e9 for track in reversed(whole)])[
        ::-1
    ]
    for track, start in zip(whole, starts.tolist(), strict=True):
        clock = clock.slice(start, np.inf)
        seconds = _emitted(track, group.kept_ns, clock, step_seconds)
        track.evidence = "usage" if track.end and track.end.completion_tokens else "arrivals"
        stamps = group.kept_ns + np.round(seconds * 1e9).astype(np.int64)
        emitted.append(np.clip(stamps, track.start_ns + 1, track.end_ns))
        clock = clock.add(seconds)
    slots = np.repeat([track.slot for track in whole], [len(stamps) for stamps in emitted])
    stamps, ones = np.concatenate(emitted), np.ones(len(slots), np.int64)
    group.streams.see(stamps, slots, ones)
    late = stamps > group.kept_ns
    np.add.at(group.streams.forgotten, slots[~late], ones[~late])
    group.outputs.insert(stamps[late], slots[late], ones[late])


def _emits(track: Track) -> bool:
    """Whether the request made tokens one by one, as far as can be told."""
    end = track.end
    if end is None or end.completion_tokens == 0 or end.units is not None:
        return False
    if end.completion_tokens is None:
        return end.cancelled and track.arrive.route in {"chat", "completions", "responses", "messages"}
    return True


def _emitted(track: Track, origin_ns: int, clock: Clock, step: float) -> Floats:
    """Stamps (s after the origin) of each token of an answer."""
    start, end = (track.start_ns - origin_ns) / 1e9, ((track.end_ns or 0) - origin_ns) / 1e9
    known = track.end.completion_tokens if track.end else None
    if track.span is not None and track.span.first_token_ns is not None:
        start = max(start, min((track.span.first_token_ns - origin_ns) / 1e9 - 0.5 * step, end))
    return ticks(clock, start, end, known, step)


def ticks(clock: Clock, start: float, end: float, count: int | None, step: float) -> Floats:
    """``count`` stamps up to ``end``; None: as many as fit.

    The steps seen of others, and, where there can have been more, at the usual pace.
    """
    inner = clock.slice(start, end + 0.5 * step)
    seen = inner.stamps
    if count is not None:
        seen = seen[len(seen) - min(count, len(seen)) :]
    knots = np.concatenate([[start], seen, [max(end, seen[-1] if len(seen) else end)]])
    room = np.maximum(np.round(np.diff(knots) / step) - 1.0, 0.0)
    room[:-1][inner.joined[len(inner.joined) - len(seen) :]] = 0.0
    missing = int(room.sum()) if count is None else count - len(seen)
    if missing <= 0:
        return seen
    if count is not None and not len(seen):
        return np.linspace(start, end, count + 1)[1:]
    fill = [seen]
    for left, right, many in zip(knots[-2::-1], knots[:0:-1], room[::-1], strict=True):
        take = int(min(many, missing))
        if take:
            fill.append(right - (right - left) / (many + 1.0) * np.arange(1, take + 1))
        missing -= take
    return np.sort(np.concatenate(fill))
