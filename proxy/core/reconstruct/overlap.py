"""Policy ``overlap``: each instant's energy split equally over the requests that are active in it.

Simple and needs nothing but arrivals and ends; wrong by 16-65 % (median) under load, because it charges a
queueing request like a computing one (docs/how-joules-are-attributed.md). Kept as the baseline.
"""

from collections.abc import Sequence

import numpy as np

from proxy.core.activity.tracks import Track
from proxy.core.activity.work import Work


def overlap(tracks: Sequence[Track], start_ns: int, end_ns: int) -> Work:
    """Work of [start_ns, end_ns): cells between arrivals and ends, their request-seconds shared equally."""
    first = np.array([max(t.start_ns, start_ns) for t in tracks], np.int64)
    last = np.array([_end_of(t, end_ns) for t in tracks], np.int64)
    last = np.maximum(last, first)
    knots = np.unique(np.concatenate([first, last, [start_ns, end_ns]]))
    span_first, span_last = np.searchsorted(knots, first), np.searchsorted(knots, last)
    change = np.zeros(len(knots))
    np.add.at(change, span_first, 1.0)
    np.add.at(change, span_last, -1.0)
    members = np.cumsum(change)[:-1]
    busy = members > 0
    renumber = np.concatenate([[0], np.cumsum(busy)])
    return Work(
        requests=len(tracks),
        cell_start=knots[:-1][busy],
        cell_end=knots[1:][busy],
        shared=(members * np.diff(knots) / 1e9)[busy],
        members=members[busy],
        span_first=renumber[span_first],
        span_last=renumber[span_last],
    )


def _end_of(track: Track, end_ns: int) -> int:
    ended = track.end_ns
    return end_ns if ended is None else min(ended, end_ns)
