"""Requests of which no token was read: their work is estimated from their life.

An answer without usage (compressed, audio, a client that left, a job that still runs) was in the engine all
the same: from "not read" no way leads to "nothing". Such a request counts as one decoding stream in every
step of its life, with its prompt (as reported, else the usual one) spread over that life. What it truly did
may be anything from a wait in the queue to a large batch, so its joules, and those of the requests beside
it, get a wide interval (``intervals``), and its evidence is ``arrivals``.

A refused request (an error status) is one, too: it lived for milliseconds and gets next to nothing, without
the usual prompt, as nothing says that one was computed.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.api.endpoints import PROMPT_ONLY_ROUTES
from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import Entries
from proxy.core.events import End
from proxy.core.reconstruct.bursts import Floats, Ints
from proxy.core.reconstruct.cells import Requests

ARRIVALS: Final = "arrivals"
FIRST_ERROR: Final = 400  # status codes, RFC 9110


def counted_tokens(track: Track) -> int | None:
    """Return the number of steps of an ended request according to its usage; None if it is unknown.

    An answer that only computes a prompt (embeddings, scores) is in the step that ends it.
    """
    end = track.end
    if end is None or end.units is not None:
        return None
    if end.completion_tokens:
        return end.completion_tokens
    # No token on any other route is no count: usage was lost, or it counts something else.
    return 1 if end.prompt_tokens is not None and track.arrive.route in PROMPT_ONLY_ROUTES else None


def unread(group: Group, tracks: Sequence[Track]) -> NDArray[np.bool_]:
    """Which requests ended, or run unstreamed, without any token seen or counted, (R,).

    Marks their evidence. Call it after answers sent whole got their outputs (``non_streamed.reveal``).
    """
    slots = np.array([track.slot for track in tracks], np.int64)
    found: NDArray[np.bool_] = group.streams.chunks[slots] == 0
    for row in np.flatnonzero(found).tolist():
        track = tracks[row]
        # A stream that runs and has shown nothing yet waits, or its prompt is being computed: its first
        # token will tell.
        if track.end is None and track.arrive.stream:
            found[row] = False
        else:
            track.evidence = ARRIVALS
    return found


def entries(
    which: NDArray[np.bool_], tracks: Sequence[Track], requests: Requests, begins: Floats, stamps: Floats
) -> Entries:
    """The work of unread requests in steps, (N,); ``static`` is how much of the step they lived.

    ``begins``, ``stamps``: begin and end of the steps, (B,), in the seconds of ``requests``.
    """
    rows = np.flatnonzero(which)
    whose = [tracks[row] for row in rows.tolist()]
    waited = np.array([_waited_seconds(track) for track in whose])
    starts = np.minimum(requests.start[rows] + waited, requests.end[rows])
    lives = np.array([_life_seconds(track) for track in whose]) - waited
    computed = np.array([_computes_prompt(track.end) for track in whose]) * requests.computed[rows]
    rates = np.divide(computed, lives, out=np.zeros(len(rows)), where=lives > 0.0)
    first = np.searchsorted(stamps, starts, side="right")
    last = np.maximum(np.searchsorted(begins, requests.end[rows], side="left"), first)
    count = last - first
    of = np.repeat(np.arange(len(rows)), count)
    cell = np.arange(len(of)) - np.repeat(np.cumsum(count) - count - first, count)
    row = rows[of]
    seconds = np.minimum(requests.end[row], stamps[cell]) - np.maximum(starts[of], begins[cell])
    seconds = np.clip(seconds, 0.0, stamps[cell] - begins[cell])
    lived = seconds / (stamps[cell] - begins[cell])
    return Entries(cell, row, lived, lived, lived * requests.prompt[row], rates[of] * seconds)


def each_of(members: Ints, unseen: Entries, cells: int) -> Floats:
    """The static share of one member of each step, (B,): ``members`` (B,) and unread requests beside them."""
    beside = np.bincount(unseen.cell, unseen.static, minlength=cells)
    return np.asarray(1.0 / np.maximum(members + beside, 1.0), dtype=float)


def divided(unseen: Entries, each: Floats) -> list[Entries]:
    """Unread work with its static share; no entries where there is none."""
    if not len(unseen.cell):
        return []
    assert unseen.static is not None
    static = unseen.static * each[unseen.cell]
    return [Entries(unseen.cell, unseen.request, static, unseen.decode, unseen.context, unseen.prefill)]


def _waited_seconds(track: Track) -> float:
    """Return the seconds from arrival to the first token by the engine's span; 0 without a span.

    A tracked job is in the columns from the begin of its work on.
    """
    first = None if track.span is None or track.tracked else track.span.first_token_ns
    return 0.0 if first is None else min(max(first - track.start_ns, 0) / 1e9, _life_seconds(track))


def _life_seconds(track: Track) -> float:
    """Length of an ended request's life; 0 for one that runs: its prompt cannot be spread over it yet."""
    return 0.0 if track.end is None else (track.end.t_ns - track.start_ns) / 1e9


def _computes_prompt(end: End | None) -> bool:
    """Whether a prompt is taken to have been computed: it was reported, or the request was not refused."""
    if end is None or end.prompt_tokens is not None:
        return True
    return end.status is None or end.status < FIRST_ERROR
