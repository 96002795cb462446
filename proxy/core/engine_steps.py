"""Engine evidence: the steps as the engine itself reports them, where it does (timeline type ``step``)."""

from collections.abc import Sequence

import numpy as np

from proxy.core.cells import Habits, columns, with_silence
from proxy.core.tracks import Group, Track
from proxy.core.work import Entries, Floats, Ints, Work


def engine_steps(group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int, habits: Habits) -> Work:
    """Work of [start_ns, end_ns) from the group's reported steps; who is in none is shared silence."""
    requests = columns(group, tracks, start_ns, end_ns, habits)
    row_of = {track.arrive.request: row for row, track in enumerate(tracks)}
    steps = [s for s in group.steps if s.start_ns < end_ns and s.t_ns > start_ns]
    emitted = [track.decoded for track in tracks]
    closed: list[int] | None = None  # as of end_ns
    decode: list[tuple[int, int, float]] = []  # cell, row, tokens read
    prefill: list[tuple[int, int, float]] = []  # cell, row, tokens computed
    for cell, step in enumerate(steps):
        if closed is None and step.t_ns > end_ns:
            closed = emitted.copy()
        for row in (row_of[name] for name in step.decode if name in row_of):
            emitted[row] += 1  # the first token came with the prompt
            decode.append((cell, row, requests.prompt[row] + emitted[row]))
        prefill += [(cell, row_of[name], float(n)) for name, n in step.prefill.items() if name in row_of]
    for track, count in zip(tracks, closed or emitted, strict=True):
        track.decoded, track.evidence = count, "steps"
    members = np.bincount([c for c, _, _ in decode] + [c for c, _, _ in prefill], minlength=len(steps))
    each = 1.0 / np.maximum(members, 1)
    begins = (np.array([s.start_ns for s in steps], np.int64) - start_ns) / 1e9
    stamps = (np.array([s.t_ns for s in steps], np.int64) - start_ns) / 1e9
    at, of, read = _columns(decode)
    entries = [Entries(at, of, each[at], np.ones(len(at)), read)]
    at, of, computed = _columns(prefill)
    entries.append(Entries(at, of, each[at], prefill=computed))
    return with_silence(requests, begins, stamps, entries, start_ns, end_ns, habits)


def _columns(rows: Sequence[tuple[int, int, float]]) -> tuple[Ints, Ints, Floats]:
    return (
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], float),
    )
