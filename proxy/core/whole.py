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
        inside = (self.stamps > start) & (self.stamps <= end)
        return Clock(self.stamps[inside], self.joined[inside])

    def add(self, stamps: Floats) -> "Clock":
        """With more steps; what they fill is filled."""
        new = np.setdiff1d(stamps, self.stamps)
        merged = np.concatenate([self.stamps, new])
        order = np.argsort(merged, kind="stable")
        joined = np.concatenate([self.joined, np.ones(len(new), bool)])
        return Clock(merged[order], joined[order])


def reveal(group: Group, whole: Sequence[Track], clock: Clock, step_seconds: float) -> None:
    """Insert the outputs of answers sent whole."""
    for track in whole:
        ticks = _emitted(track, group.kept_ns, clock, step_seconds)
        track.evidence = "usage" if track.end and track.end.completion_tokens else "arrivals"
        stamps = group.kept_ns + np.round(ticks * 1e9).astype(np.int64)
        stamps = np.clip(stamps, track.start_ns + 1, track.end_ns)
        slots = np.full(len(stamps), track.slot, np.int64)
        ones = np.ones(len(stamps), np.int64)
        group.streams.see(stamps, slots, ones)
        late = stamps > group.kept_ns
        np.add.at(group.streams.forgotten, slots[~late], ones[~late])
        group.outputs.insert(stamps[late], slots[late], ones[late])
        clock = clock.add(ticks)


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
