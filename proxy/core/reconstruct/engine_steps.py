"""Engine evidence: the steps as the engine itself reports them, where it does (timeline type ``step``)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Track
from proxy.core.activity.work import Entries, Floats, Ints, Work
from proxy.core.events import Step
from proxy.core.fit.pricing import priced
from proxy.core.reconstruct.cells import EngineProfile, columns, with_silence
from proxy.core.reconstruct.unread import ARRIVALS, FIRST_ERROR, divided, each_of
from proxy.core.reconstruct.unread import entries as unread_entries

Row = tuple[int, int, float]  # cell, request, value


def engine_steps(
    group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int, profile: EngineProfile
) -> Work:
    """Work of [start_ns, end_ns) from the group's reported steps; who is in none is shared silence."""
    requests = columns(group, tracks, start_ns, end_ns, profile)
    row_of = {track.arrive.request: row for row, track in enumerate(tracks)}
    steps = [s for s in group.steps if s.start_ns < end_ns and s.t_ns > start_ns]
    prefill, read = _prefill(steps, tracks, row_of, end_ns)
    decode = _decode(steps, tracks, row_of, end_ns)
    at, of, computed = _columns(prefill)
    cell, row, emitted = _columns(decode)
    members = np.bincount(cell, minlength=len(steps)) + np.bincount(at, minlength=len(steps))
    begins = (np.array([s.start_ns for s in steps], np.int64) - start_ns) / 1e9
    stamps = (np.array([s.t_ns for s in steps], np.int64) - start_ns) / 1e9
    missed = _missed(tracks)
    unseen = unread_entries(missed, tracks, requests, begins, stamps)
    each = each_of(members, unseen, len(steps))
    told = np.array([track.prefilled for track in tracks], float)
    prompt = np.where(requests.reported > 0.0, requests.prompt, told)
    decoding = Entries(cell, row, each[cell], np.ones(len(cell)), prompt[row] + emitted)
    entries, prices = priced(
        profile.times, stamps - begins, decoding, Entries(at, of, each[at], None, read, computed),
        divided(unseen, each), learn=(stamps > 0.0) & (stamps <= (end_ns - start_ns) / 1e9),
    )  # fmt: skip
    return with_silence(requests, begins, stamps, entries, prices, begins, start_ns, end_ns, profile, missed)


def _missed(tracks: Sequence[Track]) -> NDArray[np.bool_]:
    """Which answers were in no step the engine reported though they ended well, (R,); marks the evidence.

    The engine calls them by other names, or reported too little. One that failed or was cancelled may have
    never left the queue: the engine's word is taken.
    """
    missed = np.zeros(len(tracks), bool)
    for row, track in enumerate(tracks):
        end = track.end
        well = end is not None and not end.cancelled and end.status is not None and end.status < FIRST_ERROR
        missed[row] = well and not track.reported
        track.evidence = ARRIVALS if missed[row] else "steps"
    return missed


def _prefill(
    steps: Sequence[Step], tracks: Sequence[Track], row_of: dict[str, int], end_ns: int
) -> tuple[list[Row], Floats]:
    """Prompt tokens by cell and request, and the tokens of context they read; tracks keep what is closed."""
    rows: list[Row] = []
    read: list[float] = []
    done = [track.prefilled + (track.end.cached_tokens or 0 if track.end else 0) for track in tracks]
    for cell, step in enumerate(steps):
        for name, count in step.prefill.items():
            row = row_of.get(name)
            if row is not None:
                rows.append((cell, row, float(count)))
                read.append(done[row])
                done[row] += count
                if step.t_ns <= end_ns:
                    tracks[row].prefilled += count
    return rows, np.array(read, float)


def _decode(steps: Sequence[Step], tracks: Sequence[Track], row_of: dict[str, int], end_ns: int) -> list[Row]:
    """Tokens emitted before it by cell and request; the tracks keep the sum of what is closed."""
    rows: list[Row] = []
    emitted = [track.decoded for track in tracks]
    for cell, step in enumerate(steps):
        for row in (row_of[name] for name in step.decode if name in row_of):
            emitted[row] += 1  # the first token came with the prompt
            rows.append((cell, row, float(emitted[row])))
            if step.t_ns <= end_ns:
                tracks[row].decoded = emitted[row]
    return rows


def _columns(rows: Sequence[Row]) -> tuple[Ints, Ints, Floats]:
    return (
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], float),
    )
