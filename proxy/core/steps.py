"""Policy ``steps``: rebuild the engine's steps from the proxy's own timeline, and who was in each.

1. Output events are clustered into bursts; a burst is one step (``bursts``). Several tokens in one chunk
   are as many steps, back to the stream's last one, or one step where there were no more (speculative
   decoding).
2. A request's prompt (less what was cached) was computed in the steps that end at its first token.
3. Each step costs its static share, equally split, and each request its own decode, context and prefill.

Time in which requests are in the engine and nothing is seen of them is shared equally, as ``overlap`` does.
Definitions and measured errors: docs/how-joules-are-attributed.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from proxy.core.bursts import Floats, Ints, burst_of_event, pace, previous_of_stream, separating_gap
from proxy.core.model import EnergyModel
from proxy.core.prefill import Prompts, place
from proxy.core.tracks import Outputs, Track
from proxy.core.work import WIDTH, Work

_DEFAULT_STEP_SECONDS: Final = 0.02


@dataclass(slots=True)
class Habits:
    """What was learned of one engine: its pace and its usual prompt, for where a timeline is silent."""

    step_seconds: float = _DEFAULT_STEP_SECONDS
    prompt_tokens: float = 0.0
    prompts: int = 0
    last_ns: int = 0  # the last step of closed windows
    durations: EnergyModel = field(default_factory=lambda: EnergyModel(1))

    def see_prompt(self, tokens: int) -> None:
        """Learn from a request that reported its prompt."""
        self.prompts += 1
        self.prompt_tokens += (tokens - self.prompt_tokens) / min(self.prompts, 200)


@dataclass(frozen=True, slots=True)
class _Requests:
    """Columns of the tracks of a block, (R,) each; times in seconds after the block's origin."""

    start: Floats
    end: Floats
    first: Floats  # NaN: no output yet
    prompt: Floats  # all of it: the context a decode step reads
    computed: Floats  # of it, not cached: what prefill computes
    before: Floats  # tokens emitted before the block's events


@dataclass(frozen=True, slots=True)
class _Events:
    """Output events of a block in time order, (E,) each."""

    t: Floats
    request: Ints
    tokens: Floats
    burst: Ints
    previous: Ints


def steps(tracks: Sequence[Track], outputs: Outputs, start_ns: int, end_ns: int, habits: Habits) -> Work:
    """Work of [start_ns, end_ns), from all output events after ``start_ns`` (later ones complete steps)."""
    requests = _columns(tracks, start_ns, end_ns, habits)
    events = _events(tracks, outputs, requests, start_ns, habits)
    stamps = _stamps(events)
    begins = _begins(stamps, requests, events, (habits.last_ns - start_ns) / 1e9)
    cell, request, features = _entries(events, requests, begins, stamps, habits)
    static = np.bincount(cell, features[:, 0], minlength=len(stamps))
    features[:, 0] /= np.maximum(static[cell], 1.0)
    done = stamps[stamps * 1e9 <= end_ns - start_ns]
    if len(done):
        habits.last_ns = start_ns + round(float(done[-1]) * 1e9)
    return _with_silence(requests, begins, stamps, (cell, request, features), start_ns, end_ns, habits)


def _columns(tracks: Sequence[Track], start_ns: int, end_ns: int, habits: Habits) -> _Requests:
    def seconds(stamp: int | None) -> float:
        return np.nan if stamp is None else (stamp - start_ns) / 1e9

    prompt, cached = [], []
    for track in tracks:
        end = track.end
        known = end.prompt_tokens if end else None
        prompt.append(habits.prompt_tokens if known is None else float(known))
        cached.append(float(end.cached_tokens or 0) if end and known is not None else 0.0)
    far = (end_ns - start_ns) / 1e9
    ends = [far if t.end_ns is None else seconds(t.end_ns) for t in tracks]
    return _Requests(
        start=np.array([seconds(t.start_ns) for t in tracks]),
        end=np.array(ends),
        first=np.array([seconds(t.first_ns) for t in tracks]),
        prompt=np.array(prompt),
        computed=np.maximum(np.array(prompt) - np.array(cached), 1.0),
        before=np.array([float(t.closed_tokens) for t in tracks]),
    )


def _events(
    tracks: Sequence[Track], outputs: Outputs, requests: _Requests, start_ns: int, habits: Habits
) -> _Events:
    index = np.full(max((t.slot for t in tracks), default=-1) + 1, -1, np.int64)
    index[[t.slot for t in tracks]] = np.arange(len(tracks))
    stamp, slot, tokens = outputs.columns()
    known = (slot < len(index)) & (stamp > start_ns)
    known[known] = index[slot[known]] >= 0
    request = index[slot[known]]
    t = (stamp[known] - start_ns) / 1e9
    sized = _sized(tracks, request, tokens[known].astype(float))
    previous = previous_of_stream(request)
    step = pace(t, sized, previous)
    habits.step_seconds = step or habits.step_seconds
    gap = separating_gap(t, habits.step_seconds)
    burst = burst_of_event(t, previous, gap)
    hidden = _hidden(tracks, requests, t, burst, habits)
    if not len(hidden[0]):
        return _Events(t, request, sized, burst, previous)
    t, request, sized = (np.concatenate(pair) for pair in zip((t, request, sized), hidden, strict=True))
    order = np.argsort(t, kind="stable")
    t, request, sized = t[order], request[order], sized[order]
    previous = previous_of_stream(request)
    return _Events(t, request, sized, burst_of_event(t, previous, gap), previous)


def _sized(tracks: Sequence[Track], request: Ints, tokens: Floats) -> Floats:
    """Tokens of each chunk; where not known, the answer's tokens spread over its chunks, else one."""
    unsized = tokens < 0
    if not unsized.any():
        return tokens
    each = np.ones(len(tracks))
    for index, track in enumerate(tracks):
        total = track.end.completion_tokens if track.end else None
        if total is not None and track.chunks:
            each[index] = max(total - track.outputs, 0) / track.chunks
    return np.where(unsized, each[request], tokens)


def _hidden(
    tracks: Sequence[Track], requests: _Requests, t: Floats, burst: Ints, habits: Habits
) -> tuple[Floats, Ints, Floats]:
    """Output events that nobody saw: answers sent whole emit one token a step, back from their end."""
    clock = np.bincount(burst, t) / np.maximum(np.bincount(burst), 1) if len(burst) else np.empty(0)
    stamps, owners = [], []
    hidden = [i for i, t in enumerate(tracks) if not t.chunks and t.end and t.end.completion_tokens]
    for index in sorted(hidden, key=lambda i: float(requests.end[i])):
        end = tracks[index].end
        total = (end.completion_tokens if end else None) or 0
        ticks = _ticks(clock, requests.start[index], requests.end[index], total, habits.step_seconds)
        ticks = ticks[ticks > 0.0]
        clock = np.union1d(clock, ticks)  # steps that only such answers were in are steps of the next, too
        stamps.append(ticks)
        owners.append(np.full(len(ticks), index))
        requests.first[index] = ticks[0] if len(ticks) == total else -1.0
        requests.before[index] = total - len(ticks)
    if not stamps:
        return np.empty(0), np.empty(0, np.int64), np.empty(0)
    t_hidden = np.concatenate(stamps)
    return t_hidden, np.concatenate(owners), np.ones(len(t_hidden))


def _ticks(clock: Floats, start: float, end: float, count: int, step: float) -> Floats:
    """``count`` stamps up to ``end``: the steps seen of others, and where none are, at the usual pace."""
    seen = clock[(clock > start) & (clock <= end + 0.5 * step)]
    seen = seen[len(seen) - min(count, len(seen)) :]
    inner = np.concatenate([[start], seen, [end]])
    room = np.maximum(np.round(np.diff(inner) / step) - 1.0, 0.0)
    missing = count - len(seen)
    if missing <= 0:
        return seen
    if not room.sum():
        return np.linspace(start, end, count + 1)[1:]
    fill = [seen]
    for left, right, many in zip(inner[-2::-1], inner[:0:-1], room[::-1], strict=True):
        take = int(min(many, missing))
        if take:
            fill.append(right - (right - left) / (many + 1.0) * np.arange(1, take + 1))
        missing -= take
    ticks = np.sort(np.concatenate(fill))
    return ticks if missing <= 0 else np.linspace(start, end, count + 1)[1:]


def _stamps(events: _Events) -> Floats:
    """When each burst was, (B,): the mean of its events."""
    if not len(events.t):
        return np.empty(0)
    return np.asarray(np.bincount(events.burst, events.t) / np.bincount(events.burst), dtype=float)


def _begins(stamps: Floats, requests: _Requests, events: _Events, before: float) -> Floats:
    """When each step began: the last one's end, or the arrival that ended an idle engine or began it."""
    begins = np.concatenate([[before], stamps[:-1]]) if len(stamps) else np.empty(0)
    owner = events.request
    is_first = (events.t == requests.first[owner]) & (events.previous < 0)
    alone = np.full(len(stamps), -np.inf)
    others = np.bincount(events.burst, ~is_first, minlength=len(stamps)) > 0
    np.maximum.at(alone, events.burst[is_first], requests.start[owner[is_first]])
    # A step of nothing but first tokens began after the last of its requests came; with others decoding
    # in it, it began where the step before it ended.
    begins = np.where(others, begins, np.maximum(begins, alone))
    earliest = float(requests.start.min()) if len(requests.start) else 0.0
    return np.minimum(np.maximum(begins, earliest), stamps - 1e-9)


def _entries(
    events: _Events, requests: _Requests, begins: Floats, stamps: Floats, habits: Habits
) -> tuple[Ints, Ints, Floats]:
    """One row per request and step: (cell, request, features); static is 1, to be divided by the members."""
    owner = events.request
    is_first = (events.t == requests.first[owner]) & (events.previous < 0)
    emitted = _emitted_before(events, requests)
    distance = np.where(events.previous >= 0, events.burst - events.burst[events.previous], events.tokens)
    decoded = events.tokens - is_first
    count = np.clip(distance, 1.0, np.maximum(np.round(events.tokens), 1.0)).astype(np.int64)
    count = np.minimum(count, events.burst + 1)
    decode_count = np.where(is_first, count - 1, count)
    cell, row = _spread(events.burst, decode_count)
    features = np.zeros((len(cell), WIDTH))
    features[:, 0] = 1.0
    features[:, 1] = decoded[row] / decode_count[row]
    features[:, 2] = requests.prompt[owner[row]] + emitted[row] + 0.5 * decoded[row]
    first = np.flatnonzero(is_first)
    decoding = np.stack(
        [np.bincount(cell, column, minlength=len(stamps)).astype(float) for column in features.T], axis=1
    )
    prompts = Prompts(
        owner[first],
        np.maximum(events.burst[first] - decode_count[first], 0),
        requests.start[owner[first]],
        requests.computed[owner[first]],
    )
    step, request, tokens = place(begins, stamps, decoding, prompts, habits.durations)
    prefill = np.zeros((len(step), WIDTH))
    prefill[:, 0] = 1.0
    prefill[:, 3] = tokens
    return (
        np.concatenate([cell, step]),
        np.concatenate([owner[row], request]),
        np.concatenate([features, prefill]),
    )


def _emitted_before(events: _Events, requests: _Requests) -> Floats:
    """Tokens its stream had emitted before each event, (E,)."""
    owner = events.request
    order = np.argsort(owner, kind="stable")
    running = np.cumsum(events.tokens[order])
    base = np.concatenate([[0.0], running])[np.searchsorted(owner[order], np.arange(len(requests.start)))]
    emitted = np.empty(len(owner))
    emitted[order] = running - base[owner[order]]
    return np.asarray(emitted + requests.before[owner] - events.tokens, dtype=float)


def _spread(burst: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Rows of events that cover ``count`` steps back from their burst: (cell, event index)."""
    row = np.repeat(np.arange(len(burst)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return burst[row] - within, row


def _with_silence(
    requests: _Requests,
    begins: Floats,
    stamps: Floats,
    entries: tuple[Ints, Ints, Floats],
    start_ns: int,
    end_ns: int,
    habits: Habits,
) -> Work:
    """Steps as cells, and between them a cell for any time in which requests were silent."""
    length = (end_ns - start_ns) / 1e9
    inside = (requests.start < length) & (requests.end > 0.0)
    knots = np.unique(
        np.concatenate([begins, stamps, requests.start[inside], requests.end[inside], [0.0, length]])
    )
    knots = knots[(knots >= 0.0) & (knots <= length)]
    left, right = knots[:-1], knots[1:]
    middle = 0.5 * (left + right)
    step = np.searchsorted(begins, middle, side="right") - 1
    in_step = (step >= 0) & (middle < stamps[step]) if len(stamps) else np.zeros(len(left), bool)
    alive = np.searchsorted(np.sort(requests.start), middle) - np.searchsorted(np.sort(requests.end), middle)
    quiet = ~in_step & (alive > 0)
    left, right, alive = left[quiet], right[quiet], alive[quiet]
    begin, end = np.concatenate([begins, left]), np.concatenate([stamps, right])
    order = np.argsort(begin, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    silent = np.concatenate([np.zeros(len(stamps)), (right - left) / habits.step_seconds])
    members = np.concatenate([np.zeros(len(stamps)), alive])
    begin, end = begin[order], end[order]
    first = np.searchsorted(begin, np.maximum(requests.start, 0.0), side="left")
    last = np.maximum(np.searchsorted(begin, requests.end, side="left"), first)
    cell, request, features = entries
    return Work(
        requests=len(requests.start),
        cell_start=start_ns + np.round(begin * 1e9).astype(np.int64),
        cell_end=start_ns + np.maximum(np.round(end * 1e9), np.round(begin * 1e9) + 1).astype(np.int64),
        shared=silent[order],
        members=members[order],
        span_request=np.arange(len(requests.start)),
        span_first=first,
        span_last=last,
        entry_cell=place[cell],
        entry_request=request,
        entry_features=features,
    )
