"""Work: who did what when, as a policy sees it; and its division by what the meter measured.

A policy turns the timeline of one energy group into :class:`Work`. ``share`` then divides the *measured*
energy of each window in proportion to the modelled energy of the work in it: the model sets proportions,
the meter sets the sum. All of it is cumulative sums over cells, read at a request's boundaries (as virtual
time is in fair queueing), so the cost per output event does not grow with concurrency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PARTS: Final = ("static", "decode", "context", "prefill")
WIDTH: Final = (
    len(PARTS) + 1
)  # features of the fit: an amount of each part, and the seconds that all of it took
SECONDS: Final = len(PARTS)  # the column of these seconds
_ROUNDING: Final = 1e-5

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entries:
    """Work of one request in one cell a row, (N,) each; a column that is None is zero throughout."""

    cell: Ints
    request: Ints
    static: Floats | None = None  # in steps
    decode: Floats | None = None  # in tokens
    context: Floats | None = None  # in tokens read
    prefill: Floats | None = None  # in tokens
    prefill_seconds: Floats | None = (
        None  # fair share of the cell's time; None: by the cell's price of a token
    )

    def columns(self) -> tuple[Floats | None, ...]:
        """Amounts in the order of ``PARTS``."""
        return self.static, self.decode, self.context, self.prefill

    def seconds(self, column: int, prices: Floats) -> Floats | None:
        """The fair seconds of one part, (N,), by the prices of the cells, (C, 4); None where it is zero."""
        values = self.columns()[column]
        if values is None:
            return None
        if self.prefill_seconds is not None and column == PARTS.index("prefill"):
            return self.prefill_seconds
        return np.asarray(values * prices[self.cell, column])


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one group in a block. Requests are indices 0..R-1; cells are disjoint and sorted.

    Shapes: C cells, S spans. ``shared[c]`` is the static work of cell c (in steps, or seconds for
    ``overlap``), split equally among ``members[c]`` requests: those whose span [first, last) holds c.
    """

    requests: int
    cell_start: Ints  # (C,) ns
    cell_end: Ints  # (C,) ns, > cell_start
    shared: Floats  # (C,)
    members: Floats  # (C,)
    span_first: Ints  # (R,)
    span_last: Ints  # (R,)
    entries: tuple[Entries, ...] = ()
    prices: Floats | None = None  # (C, 4) fair seconds of a unit of each part; None: the policy needs no time
    unread: NDArray[np.bool_] | None = None  # (R,) requests of which nothing was read; None: none is
    unprompted: NDArray[np.bool_] | None = None  # (R,) those whose prompt's length is a guess; None: none is

    def guessed_features(self) -> Floats | None:
        """Of the totals of each cell, what is a guess, (C, 5); None where nothing is.

        All work of unread requests; the prompt and its context of those whose prompt's length is not known.
        """
        if self.unread is None and self.unprompted is None:
            return None
        nobody = np.zeros(self.requests, bool)
        unread = nobody if self.unread is None else self.unread
        prompted = unread if self.unprompted is None else unread | self.unprompted
        return self._totals((unread, unread, prompted, prompted))

    def features_of(self, whose: NDArray[np.bool_]) -> Floats:
        """Totals of each cell over the requests ``whose`` (R,), (C, 5)."""
        return self._totals((whose,) * len(PARTS))

    def features(self) -> Floats:
        """Totals of each cell over all requests, (C, 5)."""
        return self._totals(None)

    def _totals(self, whose: tuple[NDArray[np.bool_], ...] | None) -> Floats:
        """Totals of each cell, (C, 5); ``whose``: of which requests, (R,) for each part (None: of all)."""
        cells = len(self.cell_start)
        totals = np.zeros((cells, WIDTH))
        for entries in self.entries:
            for column, values in enumerate(entries.columns()):
                if values is None:
                    continue
                mine = None if whose is None else whose[column][entries.request]
                own = values if mine is None else np.where(mine, values, 0.0)
                totals[:, column] += np.bincount(entries.cell, own, minlength=cells)
                if self.prices is not None and (seconds := entries.seconds(column, self.prices)) is not None:
                    own = seconds if mine is None else np.where(mine, seconds, 0.0)
                    totals[:, SECONDS] += np.bincount(entries.cell, own, minlength=cells)
        present = 1.0 if whose is None else self._present(whose[0])
        shared = np.where(self.members > 0, self.shared * present, 0.0)
        totals[:, 0] += shared
        if self.prices is not None:
            totals[:, SECONDS] += shared * self.prices[:, 0]
        return totals

    def amounts(self, scale: Floats) -> Floats:
        """Return the features of each request, (R, 5), times a value of the cells, (C,)."""
        found = np.zeros((self.requests, WIDTH))
        for entries in self.entries:
            weight = scale[entries.cell]
            for column, values in enumerate(entries.columns()):
                if values is None:
                    continue
                found[:, column] += np.bincount(entries.request, values * weight, minlength=self.requests)
                seconds = None if self.prices is None else entries.seconds(column, self.prices)
                if seconds is not None:
                    found[:, SECONDS] += np.bincount(
                        entries.request, seconds * weight, minlength=self.requests
                    )
        silent = np.where(self.members > 0, self.shared / np.maximum(self.members, 1.0), 0.0) * scale
        if silent.any():
            found[:, 0] += self.over_lives(silent)
            if self.prices is not None:
                found[:, SECONDS] += self.over_lives(silent * self.prices[:, 0])
        return found

    def part_seconds(self) -> Floats:
        """The fair seconds of each part, over all cells and requests, (4,)."""
        found = np.zeros(len(PARTS))
        if self.prices is None:
            return found
        for entries in self.entries:
            for column in range(len(PARTS)):
                seconds = entries.seconds(column, self.prices)
                found[column] += 0.0 if seconds is None else float(seconds.sum())
        found[0] += float(np.where(self.members > 0, self.shared * self.prices[:, 0], 0.0).sum())
        return found

    def _present(self, whose: NDArray[np.bool_]) -> Floats:
        """The share of each cell's members that are among ``whose`` (R,), (C,)."""
        change = np.zeros(len(self.cell_start) + 1)
        np.add.at(change, self.span_first[whose], 1.0)
        np.add.at(change, self.span_last[whose], -1.0)
        return np.asarray(np.cumsum(change)[:-1] / np.maximum(self.members, 1.0))

    def over_lives(self, cells: Floats) -> Floats:
        """Return for each request the sum of a value of cells, (C,), over its life, (R,)."""
        cumulative = np.concatenate([[0.0], np.cumsum(cells)])
        # A difference of cumulative sums may round below zero; no request earns energy.
        values = cumulative[self.span_last] - cumulative[self.span_first]
        return np.asarray(np.maximum(values, 0.0), dtype=float)


def in_windows(work: Work, totals: Floats, edges: Ints) -> Floats:
    """Features that fall into each window, (W, 5), of ``totals`` (C, 5) of the cells.

    Work is spread evenly over its cell.
    """
    count = len(edges) - 1
    if not len(work.cell_start):
        return np.zeros((count, WIDTH))
    origin = edges[0]
    knots = np.stack([work.cell_start, work.cell_end], axis=1).ravel() - origin
    at = (edges - origin).astype(float)
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


def over_cells(work: Work, edges: Ints, values: Floats) -> Floats:
    """A value of windows, (W,), as its mean over each cell, (C,), zero outside the windows.

    Sums of the windows of each cell, not differences of running sums: beside a window of enormous value
    the small ones after it would be lost.
    """
    start = np.clip(work.cell_start, edges[0], edges[-1])
    end = np.clip(work.cell_end, start, edges[-1])
    most = len(values) - 1
    first = np.minimum(np.searchsorted(edges, start, side="right") - 1, most)
    last = np.maximum(np.searchsorted(edges, end, side="left") - 1, first)
    within = values[first] * (end - start)
    between = np.zeros(len(first))
    wide = np.flatnonzero(last > first + 1)
    if len(wide):
        whole = np.append(values * np.diff(edges), 0.0)
        pairs = np.stack([first[wide] + 1, last[wide]], axis=1).ravel()
        between[wide] = np.add.reduceat(whole, pairs)[::2]
    parts = values[first] * (edges[first + 1] - start) + between + values[last] * (end - edges[last])
    total = np.where(first == last, within, parts)
    return np.asarray(total / (work.cell_end - work.cell_start), dtype=float)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Shares of requests, (R, ...) each: joules by part; of all work in their life; weighted misfit.

    ``guessed``: joules that may as well be others' (see ``Charge``).
    """

    parts: Floats  # (R, 4)
    life: Floats
    misfit: Floats
    guessed: Floats


def share(
    work: Work,
    totals: Floats,
    terms: Floats,
    scale: Floats,
    misfit: Floats,
    guess: Floats | None = None,
    foreign: float = 0.0,
) -> Allocation:
    """Divide a block: modelled work times the cell's ``scale`` (C,), measured over modelled.

    ``totals`` (C, 5) of the cells, ``terms`` (5,), ``misfit`` (C,) squared relative mismatch of the windows,
    ``guess`` (C,) share of their energy that is guessed (None: none), ``foreign`` the part of that which is
    work that did not pass through.
    """
    parts = np.zeros((work.requests, len(PARTS)))
    watts = float(terms[SECONDS]) if work.prices is not None else 0.0
    doubt, guessed = np.zeros(work.requests), np.zeros(work.requests)
    for entries in work.entries:
        weight = scale[entries.cell]
        joules = np.zeros(len(weight))
        for column, values in enumerate(entries.columns()):
            if values is not None and (terms[column] > 0.0 or watts > 0.0):
                each = values * terms[column]
                if watts > 0.0 and work.prices is not None:
                    seconds = entries.seconds(column, work.prices)
                    each = each if seconds is None else each + watts * seconds
                each *= weight
                parts[:, column] += np.bincount(entries.request, each, minlength=work.requests)
                joules += each
        if guess is not None:
            guessed += np.bincount(entries.request, joules * guess[entries.cell], minlength=work.requests)
        joules *= misfit[entries.cell]
        doubt += np.bincount(entries.request, joules, minlength=work.requests)
    silent = np.where(work.members > 0, work.shared / np.maximum(work.members, 1.0), 0.0)
    if silent.any():
        price = terms[0] if work.prices is None else terms[0] + watts * work.prices[:, 0]
        each = silent * scale * price
        parts[:, 0] += work.over_lives(each)
        doubt += work.over_lives(each * misfit)
        if guess is not None:
            guessed += work.over_lives(each * guess)
    life = work.over_lives((totals @ terms) * scale)
    if work.unread is not None:
        # Of an unread request all is a guess but what nobody else can have used.
        own = parts[work.unread].sum(axis=1)
        sure = (1.0 - foreign) * own**2 / np.maximum(life[work.unread], np.maximum(own, 1e-300))
        guessed[work.unread] = own - sure
    return Allocation(parts, life, doubt, guessed)


def rounding(granted: float, allocated: float) -> float:
    """Return the factor that makes the joules allocated exactly the joules granted.

    It is 1 but for rounding; 0 where there is no request. Sums over many cells keep eight digits where
    windows are of nanoseconds. A larger difference would be a defect, and is not hidden.
    """
    if allocated <= 0.0:
        return 0.0
    factor = granted / allocated
    return factor if abs(factor - 1.0) < _ROUNDING else 1.0
