"""Policy ``steps``: rebuild the engine's steps from the proxy's own timeline, and who was in each.

1. Output events are clustered into bursts; a burst is one step (``bursts``). Several tokens in one chunk
   are as many steps, back to the stream's last one, or one step where there were no more (speculative
   decoding). Answers sent whole are laid into the steps of the others (``non_streamed``).
2. A request's prompt (less what was cached) was computed in the steps that end at its first token
   (``prefill``).
3. Each step costs its static share, equally split, and each request its own decode, context and prefill.

Time in which requests are in the engine and nothing is seen of them is shared equally, as ``overlap`` does.
Definitions and measured errors: docs/how-joules-are-attributed.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxy.core.activity.tracks import Group, Role, Track
from proxy.core.activity.work import Entries, Work
from proxy.core.fit.pricing import priced
from proxy.core.reconstruct.bursts import Floats, Ints, by_stream
from proxy.core.reconstruct.cached import is_silent
from proxy.core.reconstruct.cells import EngineProfile, Requests, columns, with_silence
from proxy.core.reconstruct.chunk_tokens import chunks_of, missing_tokens, sized
from proxy.core.reconstruct.clustering import clustered, streams_of
from proxy.core.reconstruct.neighbours import after_neighbours
from proxy.core.reconstruct.non_streamed import Clock, placed_by_guess, reveal
from proxy.core.reconstruct.non_streamed import unseen as sent_whole
from proxy.core.reconstruct.prefill import Prompts, Seen, place
from proxy.core.reconstruct.unread import divided, each_of, unread
from proxy.core.reconstruct.unread import entries as unread_entries


@dataclass(frozen=True, slots=True)
class _Events:
    """Output events of a block in time order, (E,) each."""

    t: Floats
    request: Ints
    tokens: Floats
    burst: Ints
    previous: Ints
    is_first: Ints  # of its request
    emitted: Floats  # tokens of its request before it
    stamps: Floats  # (B,) ends of the steps
    speculative: bool  # a chunk of several tokens is one step


def steps(group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int, profile: EngineProfile) -> Work:
    """Work of [start_ns, end_ns), from the outputs around it."""
    _reveal(group, tracks, profile)
    requests = columns(group, tracks, start_ns, end_ns, profile)
    until = group.view(end_ns)[1]
    events = _events(group, tracks, requests, start_ns, until, profile)
    group.step_seconds = profile.step_seconds
    decode = _decoding(events, requests)
    streams = _totals(decode.cell, decode.decode, len(events.stamps))
    context = _totals(decode.cell, decode.context, len(events.stamps))
    stamps = events.stamps
    since = _begins(stamps, requests, events, max(group.kept_ns - start_ns, 0) / 1e9)
    begins = after_neighbours(group, start_ns, since, stamps)
    seen = Seen(begins, stamps, streams, context, (end_ns - start_ns) / 1e9)
    hidden = unread(group, tracks)
    unseen = unread_entries(hidden, tracks, requests, begins, stamps)
    entries, prices = _entries(group, events, requests, decode, seen, profile, unseen, tracks)
    inside = (events.t > 0.0) & (events.t <= seen.until)
    guessed = hidden | placed_by_guess(tracks, events.request, events.burst, inside)
    return with_silence(
        requests,
        begins,
        stamps,
        entries,
        prices,
        since,
        start_ns,
        end_ns,
        profile,
        guessed,
        ~guessed & (requests.reported == 0.0),
    )


def _reveal(group: Group, tracks: Sequence[Track], profile: EngineProfile) -> None:
    """Answers sent whole get their outputs, from all steps known by now."""
    hidden = sent_whole(group, tracks)
    if hidden:
        outputs = group.outputs
        t, streams = (outputs.t_ns - group.kept_ns) / 1e9, group.streams
        missing = np.zeros(len(streams.start_ns))
        everyone = list(group.tracks.values())
        missing[[track.slot for track in everyone]] = missing_tokens(group, everyone)
        chunks = chunks_of(outputs.tokens, outputs.slot, missing, streams.chunks)
        found = clustered(t, outputs.slot, chunks, profile)
        joined = np.zeros(len(found.stamps), bool)
        # A stream's next token comes in the next step: between the two there was none.
        again = np.flatnonzero((found.previous >= 0) & (chunks.counted == 1.0))
        again = again[found.burst[again] - found.burst[found.previous[again]] == 1]
        joined[found.burst[again]] = True
        reveal(group, hidden, Clock(found.stamps, joined), profile.step_seconds)


def _events(
    group: Group,
    tracks: Sequence[Track],
    requests: Requests,
    start_ns: int,
    until_ns: int,
    profile: EngineProfile,
) -> _Events:
    stamp, slot, tokens = group.outputs.until(until_ns)
    row = np.full(len(group.streams.start_ns), -1, np.int64)
    slots = np.array([t.slot for t in tracks], np.int64)
    row[slots] = np.arange(len(tracks))
    request = row[slot]
    known = request >= 0
    if not known.all():
        stamp, request, tokens = stamp[known], request[known], tokens[known]
    t = (stamp - start_ns) / 1e9
    if group.role is Role.PREFILL:
        tokens = np.ones_like(tokens)  # whatever more was in a first chunk was not computed with the prompt
    chunks = chunks_of(tokens, request, missing_tokens(group, tracks), group.streams.chunks[slots])
    stream = streams_of(request, requests.samples)
    certain = None if stream is request else requests.samples[request] == 1
    found = clustered(t, stream, chunks, profile, certain)
    held = sized(chunks, request, found.burst, found.previous)
    is_first = np.flatnonzero((found.previous < 0) & (t == requests.first[request]))
    order = found.order if stream is request else by_stream(request)
    emitted = _emitted(held, request, order, requests)
    return _Events(
        t, request, held, found.burst, found.previous, is_first, emitted, found.stamps, found.speculative
    )


def _emitted(tokens: Floats, request: Ints, order: Ints, requests: Requests) -> Floats:
    """Tokens its request had emitted before each event, (E,)."""
    sorted_tokens, sorted_request = tokens[order], request[order]
    running = np.concatenate([[0.0], np.cumsum(sorted_tokens)])
    begin = np.concatenate([[0], np.cumsum(np.bincount(request, minlength=len(requests.start)))])[:-1]
    emitted = np.empty(len(tokens))
    emitted[order] = running[:-1] + (requests.before - running[begin])[sorted_request]
    return emitted


def _begins(stamps: Floats, requests: Requests, events: _Events, before: float) -> Floats:
    """When each step began: the last one's end, or the arrival that ended an idle engine or began it."""
    begins = np.concatenate([[min(before, stamps[0])], stamps[:-1]]) if len(stamps) else np.empty(0)
    first = events.is_first
    alone = np.full(len(stamps), -np.inf)
    count = np.bincount(events.burst, minlength=len(stamps))
    others = count > np.bincount(events.burst[first], minlength=len(stamps))
    np.maximum.at(alone, events.burst[first], requests.start[events.request[first]])
    # A step of nothing but first tokens began after the last of its requests came; with others decoding
    # in it, it began where the step before it ended.
    begins = np.where(others, begins, np.maximum(begins, alone))
    earliest = float(requests.start.min()) if len(requests.start) else 0.0
    return np.minimum(np.maximum(begins, earliest), stamps - 1e-9)


def _entries(
    group: Group,
    events: _Events,
    requests: Requests,
    decode: Entries,
    seen: Seen,
    profile: EngineProfile,
    unseen: Entries,
    tracks: Sequence[Track],
) -> tuple[list[Entries], Floats]:
    """Decoding, prompts, and requests nothing was read of; static is one step, divided by its members.

    And the prices of their seconds, (B, 4).
    """
    # A decode engine receives its prompts computed.
    first = events.is_first if group.role is not Role.DECODE else events.is_first[:0]
    after = np.maximum(np.round(events.tokens[first]).astype(np.int64) - 1, 0)
    prompts = Prompts(
        request=events.request[first],
        step=np.maximum(events.burst[first] - after, _earliest_steps(events, requests, first)),
        arrival=requests.start[events.request[first]],
        tokens=requests.computed[events.request[first]],
        most=requests.prompt[events.request[first]],
        doubt=requests.doubt[events.request[first]],
        silent=np.array([is_silent(track) for track in tracks], bool)[events.request[first]],
        reported=requests.reported[events.request[first]] > 0,
    )
    count = len(seen.stamps)
    (step, request, tokens), doubt = place(seen, prompts, profile.times)
    if doubt.any():
        _note_doubts(tracks, prompts.request, doubt, _totals(request, tokens, len(tracks)))
    members = np.bincount(decode.cell, minlength=count) + np.bincount(step, minlength=count)
    each = each_of(members, unseen, count)
    prompt = Entries(step, request, each[step], None, _read(step, request, tokens, requests), tokens)
    return priced(
        profile.times,
        seen.stamps - seen.begins,
        Entries(decode.cell, decode.request, each[decode.cell], decode.decode, decode.context),
        prompt,
        divided(unseen, each),
    )


def _note_doubts(tracks: Sequence[Track], request: Ints, doubt: Floats, computed: Floats) -> None:
    """Note how sure the computed part of prompts is.

    ``doubt``: standard deviations, in tokens, of the prompts of the requests ``request``, (P,) each;
    ``computed``: tokens of all requests, (R,).
    """
    for row, tokens in zip(request.tolist(), doubt.tolist(), strict=True):
        tracks[row].prompt_doubt = tokens / max(float(computed[row]), 1.0)


def _earliest_steps(events: _Events, requests: Requests, first: Ints) -> Ints:
    """Return, for each of the ``first`` tokens, the first step that ended after its request arrived, (F,).

    A first chunk of many tokens is spread over the steps before it, but not over those before its request.
    """
    burst, request = events.burst[first], events.request[first]
    ended_after = np.searchsorted(events.stamps, requests.start[request], side="right")
    return np.minimum(ended_after, burst)


def _read(step: Ints, request: Ints, tokens: Floats, requests: Requests) -> Floats:
    """Tokens of context that the parts of prompts read: the cached prefix, and the parts before, (N,)."""
    order = np.lexsort((step, request))
    running = np.cumsum(tokens[order])
    first = np.searchsorted(request[order], request[order], side="left")
    before = np.empty(len(tokens))
    before[order] = running - tokens[order] - (running[first] - tokens[order][first])
    placed = np.bincount(request, tokens, minlength=len(requests.prompt))
    return before + np.maximum(requests.prompt - placed, 0.0)[request]


def _totals(cell: Ints, values: Floats | None, cells: int) -> Floats:
    return np.bincount(cell, values, minlength=cells).astype(float)


def _decoding(events: _Events, requests: Requests) -> Entries:
    """One row per request and step in which it decoded."""
    decoded = events.tokens.copy()
    decoded[events.is_first] -= 1.0  # the first token comes with the prompt
    # Each of several answers reads the prompt and what it has emitted itself.
    emitted = _emitted_by_each(events, requests)
    context = requests.prompt[events.request] + emitted + 0.5 * decoded
    if (events.tokens == 1.0).all():
        row = np.flatnonzero(decoded > 0.0)
        entries = Entries(events.burst[row], events.request[row], None, decoded[row], context[row])
        return _joined(entries, len(requests.start)) if (requests.samples > 1).any() else entries
    room = np.where(events.previous >= 0, events.burst - events.burst[events.previous], events.tokens)
    count = np.clip(room, 1.0, np.maximum(np.round(events.tokens), 1.0)).astype(np.int64)
    count = np.minimum(count, events.burst + 1)
    first = events.is_first
    after = np.maximum(events.burst[first] - _earliest_steps(events, requests, first), 1)
    count[first] = np.minimum(np.minimum(count, np.round(decoded).astype(np.int64))[first], after)
    cell, row = _spread(events.burst, count)
    each = decoded / np.maximum(count, 1)
    if events.speculative:
        # All drafted tokens are computed, and then some are accepted: a step costs the same for any number.
        each = np.minimum(each, 1.0)
    return Entries(cell, events.request[row], None, each[row], context[row])


def _emitted_by_each(events: _Events, requests: Requests) -> Floats:
    """Return the tokens that the answer of each event had emitted before, (E,).

    Of several answers, those that still run have emitted a token in each step; an equal part of what their
    request emitted would count the short ones that have ended.
    """
    samples = requests.samples[events.request]
    several = samples > 1
    if not several.any():
        return events.emitted
    begun = np.full(len(requests.start), len(events.stamps), np.int64)
    np.minimum.at(begun, events.request, events.burst)
    steps = requests.before[events.request] / samples + events.burst - begun[events.request]
    return np.where(several, steps, events.emitted)


def _joined(entries: Entries, requests: int) -> Entries:
    """Return one row per request and step: a request takes part in a step once, with all its answers."""
    key, row = np.unique(entries.cell * requests + entries.request, return_inverse=True)
    decode = np.bincount(row, entries.decode).astype(float)
    context = np.bincount(row, entries.context).astype(float)
    return Entries(key // requests, key % requests, None, decode, context)


def _spread(burst: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Rows of events that cover ``count`` steps back from their burst: (cell, event index)."""
    row = np.repeat(np.arange(len(burst)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    return burst[row] - within, row
