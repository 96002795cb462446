"""Work: who did what when, as a policy sees it; and its division by what the meter measured.

A policy turns the timeline of one energy group into :class:`Work`. ``divide`` then shares the *measured*
energy of each window in proportion to the modelled energy of the work in it: the model sets proportions,
the meter sets the sum. All of it is cumulative sums over cells, read at a request's boundaries (as virtual
time is in fair queueing), so the cost per output event does not grow with concurrency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FEATURES: Final = ("static", "decode", "context", "prefill")
WIDTH: Final = len(FEATURES)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """What one group did in a block. Requests are indices 0..R-1; cells are disjoint and sorted.

    Shapes: C cells, S spans, N entries. ``shared[c]`` is the static work of cell c (in steps, or seconds for
    ``overlap``), split equally among ``members[c]`` requests: those whose span [first, last) holds c. An
    entry adds ``entry_features`` (static, decode, context, prefill) of one request to one cell.
    """

    requests: int
    cell_start: Ints  # (C,) ns
    cell_end: Ints  # (C,) ns, > cell_start
    shared: Floats  # (C,)
    members: Floats  # (C,)
    span_request: Ints  # (S,)
    span_first: Ints  # (S,)
    span_last: Ints  # (S,)
    entry_cell: Ints  # (N,)
    entry_request: Ints  # (N,)
    entry_features: Floats  # (N, 4)

    def features(self) -> Floats:
        """Totals of each cell, (C, 4)."""
        cells = len(self.cell_start)
        totals = np.empty((cells, WIDTH))
        for column in range(WIDTH):
            totals[:, column] = np.bincount(self.entry_cell, self.entry_features[:, column], minlength=cells)
        totals[:, 0] += np.where(self.members > 0, self.shared, 0.0)
        return totals

    def bounds(self, terms: Floats, scale: Floats) -> tuple[Floats, Floats]:
        """For each request the joules of all work while it lived, and of that it was alone in, (R,) each."""
        each = (self.features() @ terms) * scale
        owners = np.bincount(self.entry_cell, minlength=len(each)) + np.where(
            self.members > 0, self.members, 0.0
        )
        return self._over_spans(each), self._over_spans(np.where(owners == 1, each, 0.0))

    def _over_spans(self, values: Floats) -> Floats:
        cumulative = np.concatenate([[0.0], np.cumsum(values)])
        of_span = cumulative[self.span_last] - cumulative[self.span_first]
        return np.bincount(self.span_request, of_span, minlength=self.requests).astype(float)


def in_windows(work: Work, edges: Ints) -> Floats:
    """Features that fall into each window, (W, 4).

    Work is spread evenly over its cell.
    """
    count = len(edges) - 1
    if not len(work.cell_start):
        return np.zeros((count, WIDTH))
    origin = edges[0]
    knots = np.stack([work.cell_start, work.cell_end], axis=1).ravel() - origin
    at = (edges - origin).astype(float)
    totals = work.features()
    out = np.empty((count, WIDTH))
    for column in range(WIDTH):
        out[:, column] = np.diff(np.interp(at, knots, _steps_up(totals[:, column])))
    return out


def covered_seconds(works: Sequence[Work], edges: Ints) -> Floats:
    """Seconds of each window in which any of the works has a cell, (W,)."""
    starts = np.concatenate([w.cell_start for w in works]) if works else np.empty(0, np.int64)
    if not len(starts):
        return np.zeros(len(edges) - 1)
    ends = np.concatenate([w.cell_end for w in works])
    stamps = np.concatenate([starts, ends])
    order = np.argsort(stamps, kind="stable")
    level = np.cumsum(np.repeat([1, -1], len(starts))[order])
    knots = stamps[order]
    busy = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (level[:-1] > 0))])
    origin = edges[0]
    at = (edges - origin).astype(float)
    return np.asarray(np.diff(np.interp(at, knots - origin, busy)) / 1e9, dtype=float)


def _steps_up(values: Floats) -> Floats:
    """Cumulative sum at the start and at the end of each cell, (2C,)."""
    ends = np.cumsum(values)
    return np.stack([ends - values, ends], axis=1).ravel()


def scale_of_cells(work: Work, edges: Ints, ratio: Floats) -> Floats:
    """Measured over modelled energy for each cell, (C,): the mean over the cell, zero outside the windows."""
    origin = edges[0]
    cumulative = np.concatenate([[0.0], np.cumsum(ratio * np.diff(edges))])
    at = (edges - origin).astype(float)
    rise = np.interp(work.cell_end - origin, at, cumulative) - np.interp(
        work.cell_start - origin, at, cumulative
    )
    return np.asarray(rise / (work.cell_end - work.cell_start), dtype=float)


def share(work: Work, terms: Floats, scale: Floats) -> Floats:
    """Joules of each request by part, (R, 4): modelled work times its cell's scale."""
    parts = np.zeros((work.requests, WIDTH))
    if len(work.entry_cell):
        weight = scale[work.entry_cell]
        for column in range(WIDTH):
            parts[:, column] = np.bincount(
                work.entry_request,
                work.entry_features[:, column] * weight,
                minlength=work.requests,
            )
    if len(work.span_request):
        each = np.where(work.members > 0, work.shared / np.maximum(work.members, 1.0), 0.0) * scale
        cumulative = np.concatenate([[0.0], np.cumsum(each)])
        joules = cumulative[work.span_last] - cumulative[work.span_first]
        # A difference of cumulative sums may round below zero; no request earns energy.
        parts[:, 0] += np.bincount(work.span_request, np.maximum(joules, 0.0), minlength=work.requests)
    return parts * terms
