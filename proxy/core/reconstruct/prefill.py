"""Prefill: in which steps the prompt of each request was computed.

An engine computes prompts in chunks under a token budget that the proxy cannot see. It need not: a step that
computes prompt tokens takes longer, so the lengths of the steps show how many there were (``step_time``).
Each prompt is placed up to the step of its first token, in order of first tokens. Placing and fitting feed
each other: before there is a fit they take turns, from three sides (each prompt in one step; budgets always
full; just as much room as there are prompt tokens), and the result that explains the steps best is kept.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.fit.pricing import prior_time
from proxy.core.fit.step_time import StepTime, StepTimes
from proxy.core.numerics.order_statistics import median, quantile
from proxy.core.reconstruct.bursts import Floats, Ints
from proxy.core.reconstruct.cached import PromptSizes, StepRoom, computed

_ROUNDS: Final = 4
_SILENT: Final = 5.0  # times longer than most: such a step holds a silence
_LONGEST: Final = 20.0  # times the usual decoding step: longer ones hold a silence, not a prompt
_OUTLIER: Final = 3.0  # typical residuals; steps beyond teach nothing,
_LEAST_DOUBT: Final = 0.01  # (at least so much of the usual time)
_CLOSE: Final = 0.25  # of their length: unless they are so close to what is expected; few steps hold prompts
_LEAST_SHARE: Final = 0.05  # of a prompt: less is noise, not a chunk
_LEAST_TOKENS: Final = 16.0
_ROUGH: Final = 0.03  # residual of a first guess
_LEAST_RESIDUAL: Final = 0.002  # of step times: no fit is believed to be better
_UNBOUNDED: Final = 1e9  # tokens
_SLOWEST: Final = 0.95  # quantile of time per token: such prompts are taken to be computed entirely
_CACHED_SHARE: Final = 0.7  # of these, in the median, below which prompts are taken to be cached in part,
_BETTER: Final = (
    0.5  # if that leaves at most so much of the steps' time unexplained. Measured: 0.1, else 0.97
)
_LOST_SHARE: Final = 0.1  # of all prompts without room where they should be: prompts side by side

Placed = tuple[Ints, Ints, Floats]


@dataclass(frozen=True, slots=True)
class Seen:
    """Steps of a block, (B,) each: begin and end (s), decoding streams, tokens of context they read.

    Steps that end in (0, ``until``] are the block's own, the others its surroundings.
    """

    begins: Floats
    stamps: Floats
    streams: Floats
    context: Floats
    until: float


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts to be placed, (P,) each: request index, step of the first token, arrival (s), tokens.

    ``tokens``: to compute, with standard deviation ``doubt``; ``most``: with those that may be cached.
    ``silent``: nothing is known of what was cached of them.
    ``reported``: whether the engine reported the tokens; else they are a guess.
    """

    request: Ints
    step: Ints
    arrival: Floats
    tokens: Floats
    most: Floats
    doubt: Floats
    silent: NDArray[np.bool_]
    reported: NDArray[np.bool_]

    def by_time(self) -> "Prompts":
        """Return them with those that are ``silent`` of any length up to ``most``."""
        return replace(self, doubt=np.where(self.silent, self.most, self.doubt))


def place(seen: Seen, prompts: Prompts, times: StepTimes) -> tuple[Placed, Floats]:
    """Place prompts: chunks (step, request, tokens) of all of them. ``times`` learns from these steps.

    Returns:
        The chunks, and the standard deviation of the computed tokens of each prompt, (P,).
    """
    if len(seen.stamps) < 2 or not len(prompts.step):
        return (prompts.step, prompts.request, prompts.tokens), prompts.doubt
    view = _View(seen, prompts)
    by_time = _View(seen, prompts.by_time()) if prompts.silent.any() else view
    if times.partly_cached and times.time is not None:
        placed, doubt = by_time.estimated(times.time)
        view.teach(times, placed)
        return _of_requests(placed, prompts), doubt
    if times.ready and times.time is not None:
        placed = view.placed(times.time)
        view.teach(times, placed)
    else:
        placed = view.first_placed(times)
        if by_time is not view and by_time.find_partly_cached(times, view):
            view = by_time
    doubt = prompts.doubt
    if times.time is not None and (times.partly_cached or doubt.any()):
        # The fit does not learn from these numbers, which follow from it.
        placed, doubt = view.estimated(times.time)
    return _of_requests(placed, prompts), doubt


def _of_requests(placed: Placed, prompts: Prompts) -> Placed:
    """Return chunks by request index instead of the prompt's number."""
    step, row, tokens = placed
    return step, prompts.request[row], tokens


class _View:
    """The steps of a block, and where its prompts can have been."""

    __slots__ = ("_decoding", "_earliest", "_own", "_prompts", "_took")

    def __init__(self, seen: Seen, prompts: Prompts) -> None:
        self._took = seen.stamps - seen.begins
        self._own = (seen.stamps > 0.0) & (seen.stamps <= seen.until)
        self._decoding = np.stack([seen.streams, seen.context, np.zeros(len(self._took))], axis=1)
        self._prompts = prompts
        self._earliest = _earliest(seen.begins, prompts)

    def first_placed(self, times: StepTimes) -> Placed:
        """Place and fit in turn, from three sides, without a fit; keep what explains the steps best."""
        whole = self._whole()
        prior = prior_time(float(self._took.sum()), self._features(whole))
        best, learned, placed = np.inf, times, whole
        for start in (whole, self.placed(prior), self.placed(self._balanced(prior))):
            trial, at = self._in_turn(times, start)
            if trial.time is None:
                continue
            _, doubt = self._typical(self._features(at), trial.time)
            if doubt < best:
                best, learned, placed = doubt, trial, at
        times.replace_by(learned)
        times.placed()
        return placed

    def _balanced(self, time: StepTime) -> StepTime:
        """Return the time by which the steps have just as much room as there are prompt tokens.

        It depends on no placement: all prompts together took what the steps took beyond decoding.
        """
        decoding = np.sort(self._took)[: max(len(self._took) // 2, 1)]
        usual = median(decoding)
        streams, context, _ = self._decoding.T
        base = time.seconds(streams, context, np.zeros(len(streams)))
        scale = usual / max(median(base), 1e-9)
        terms = (time.overhead * scale, time.weights * scale, time.context * scale, time.decode * scale)
        balanced = StepTime(*terms, time.prefill * scale, time.p, _ROUGH)
        total = float(self._prompts.tokens.sum())
        for _ in range(_ROUNDS):
            room, seen = balanced.room(self._took, streams, context)
            found = float(room[seen & (self._took < _LONGEST * usual)].sum())
            if found <= 0.0 or total <= 0.0:
                break
            balanced = replace(balanced, prefill=balanced.prefill * found / total)
        return balanced

    def _in_turn(self, times: StepTimes, placed: Placed) -> tuple[StepTimes, Placed]:
        trial = times.copy()
        trial.learn(self._features(placed)[self._own], self._took[self._own], fit=False)
        trial.fit()
        learned = np.empty(0)
        for _ in range(_ROUNDS):
            if trial.time is None:
                break
            placed = self.placed(trial.time)
            rows = self._features(placed)
            typical = self._typical(rows, trial.time)[0] & self._own
            if np.array_equal(learned, rows[typical]):
                break  # prompts are where they were: there is nothing new to fit
            learned = rows[typical]
            before, trial = trial.time, times.copy()
            trial.time = before
            trial.learn(learned, self._took[typical], fit=False)
            trial.fit()
        return trial, placed

    def placed(self, time: StepTime) -> Placed:
        """Place each prompt where the time of the steps leaves room for it."""
        if time.prefill <= 0.0:
            return self._whole()
        streams, context, _ = self._decoding.T
        room, seen = time.room(self._took, streams, context)
        return _lay(self._earliest, self._prompts, room, seen)

    def estimated(self, time: StepTime) -> tuple[Placed, Floats]:
        """Place prompts with as many computed tokens as the steps show; also return their doubt."""
        if time.prefill <= 0.0:
            return self._whole(), self._prompts.doubt
        tokens, doubt = self._computed(time, self._prompts.most)
        streams, context, _ = self._decoding.T
        room, seen = time.room(self._took, streams, context)
        return _lay(self._earliest, replace(self._prompts, tokens=tokens), room, seen), doubt

    def _computed(self, time: StepTime, most: Floats) -> tuple[Floats, Floats]:
        """Return the computed tokens of prompts, at most ``most``, by the time of steps, and their doubt."""
        prompts = self._prompts
        streams, context, _ = self._decoding.T
        room, seen = time.room(self._took, streams, context)
        noise = max(time.residual, _LEAST_RESIDUAL) * self._took / time.prefill
        steps = StepRoom(room, seen & (room >= _LEAST_TOKENS), noise)
        return computed(
            PromptSizes(prompts.step, self._earliest[1], prompts.tokens, most, prompts.doubt), steps
        )

    def find_partly_cached(self, times: StepTimes, explained: "_View") -> bool:
        """Decide whether prompts are cached though nothing reports it; if so, ``times`` is fitted anew.

        It is so where most prompts took far less time than the slowest for their length, and where lengths by
        time leave far less unexplained than the reported ones, by which ``explained`` was fitted. The slowest
        are taken to be computed entirely: nothing else shows how long a token takes, and as long as all are
        scaled alike, shares hardly depend on it.
        """
        time, silent = times.time, self._prompts.silent
        if time is None or time.prefill <= 0.0:
            return False
        usual = self._typical(self._features(explained.placed(time)), time)[1]
        trial, share, left = times, np.ones(1), usual
        for _ in range(_ROUNDS):
            tokens, _ = self._computed(time, np.full(len(silent), _UNBOUNDED))
            share = tokens[silent] / self._prompts.most[silent]
            slowest = quantile(share, _SLOWEST)
            share = share / max(slowest, 1e-9)
            trial = StepTimes()
            trial.time = replace(time, prefill=time.prefill * slowest)
            rows = self._features(self.estimated(trial.time)[0])
            typical = self._typical(rows, trial.time)[0] & self._own
            trial.learn(rows[typical], self._took[typical], fit=False)
            trial.fit()
            time = trial.time
            left = self._typical(rows, time)[1]
        if median(share) > _CACHED_SHARE or left > _BETTER * usual:
            return False
        trial.partly_cached = True
        times.replace_by(trial)
        times.placed()
        return True

    def teach(self, times: StepTimes, placed: Placed) -> None:
        """Learn from the typical steps of the block."""
        rows = self._features(placed)
        assert times.time is not None
        typical = self._typical(rows, times.time)[0] & self._own
        times.learn(rows[typical], self._took[typical])

    def _whole(self) -> Placed:
        """Place each prompt in the step of its first token."""
        return self._prompts.step, np.arange(len(self._prompts.step)), self._prompts.tokens

    def _features(self, placed: Placed) -> Floats:
        rows = self._decoding.copy()
        rows[:, 2] = np.bincount(placed[0], placed[2], minlength=len(rows))
        return rows

    def _typical(self, rows: Floats, time: StepTime) -> tuple[NDArray[np.bool_], float]:
        """Return which steps took about as long as expected, and the mean residual, outliers clipped (s)."""
        usable = self._took < _SILENT * quantile(self._took, 0.95)
        residual = np.abs(self._took - time.seconds(*rows.T))
        doubt = float(np.mean(np.minimum(residual[usable], 0.5 * self._took[usable])))
        bound = _OUTLIER * max(median(residual[usable]), _LEAST_DOUBT * median(self._took))
        return usable & ((residual <= bound) | (residual <= _CLOSE * self._took)), doubt


def _earliest(begins: Floats, prompts: Prompts) -> tuple[Ints, Ints]:
    """Return the first step each prompt can have been in, (P,) each: by arrival, and by the one before.

    Engines compute one prompt after the other (in vLLM and SGLang at most one is half done).
    """
    arrived = np.minimum(np.searchsorted(begins, prompts.arrival, side="left"), prompts.step)
    order = np.lexsort((-prompts.tokens, prompts.arrival, prompts.step))
    finished = np.zeros(len(order), np.int64)
    finished[order[1:]] = prompts.step[order[:-1]]
    return arrived, np.maximum(arrived, finished)


def _lay(earliest: tuple[Ints, Ints], prompts: Prompts, room: Floats, seen: NDArray[np.bool_]) -> Placed:
    """Place each prompt into the room (tokens) of the steps up to its first token, in order of first tokens.

    Where much finds no room there, the engine computes several prompts side by side, and only their arrival
    bounds them.
    """
    arrived, free = earliest
    placed, lost = _in_order(free, prompts, room, seen)
    if lost > _LOST_SHARE:
        return _side_by_side(arrived, free, prompts, room)
    return placed


def _in_order(free: Ints, prompts: Prompts, room: Floats, seen: NDArray[np.bool_]) -> tuple[Placed, float]:
    """Return chunks of prompts computed one after the other, and the share of their tokens without room.

    An engine that computes a part of a prompt fills its step: else it would have computed more of it. So all
    parts but the last lie in an unbroken run of steps with visible room before the last one, and fill them.
    """
    left, visible = room.tolist(), (seen & (room >= _LEAST_TOKENS)).tolist()
    last, wants, first = prompts.step.tolist(), prompts.tokens.tolist(), free.tolist()
    reported = prompts.reported.tolist()
    steps: list[int] = []
    rows: list[int] = []
    tokens: list[float] = []
    lost = 0.0
    # Prompts of known length first: what room they leave is what the others can have had.
    for row in np.lexsort((-prompts.tokens, prompts.arrival, prompts.step, ~prompts.reported)).tolist():
        end, begin = last[row], last[row]
        while begin > first[row] and visible[begin - 1]:
            begin -= 1
        if begin == end and reported[row]:  # most prompts: no step before had room
            without = wants[row] - left[end]
            if visible[end] and without >= max(_LEAST_TOKENS, _LEAST_SHARE * wants[row]):
                lost += without
            left[end] = max(-without, 0.0)
            steps.append(end)
            rows.append(row)
            tokens.append(wants[row])
            continue
        if reported[row]:
            chunks, rest = _fill(left, begin, end, wants[row], visible=visible[end])
            lost += rest
        else:
            chunks = _guess(left, begin, end, wants[row], visible=visible[end])
        steps += chunks
        rows += [row] * len(chunks)
        tokens += chunks.values()
    return (np.array(steps), np.array(rows), np.array(tokens)), lost / max(sum(wants), 1.0)


def _fill(
    left: list[float], begin: int, end: int, wanted: float, *, visible: bool
) -> tuple[dict[int, float], float]:
    """Return the chunks of one prompt by step, and its tokens without room; the room is used up."""
    least = max(_LEAST_TOKENS, _LEAST_SHARE * wanted)
    before = sum(left[begin:end])
    while begin < end and before - left[begin] > wanted:
        before -= left[begin]  # more room than prompt: it began later
        begin += 1
    chunks: dict[int, float] = {}
    rest = wanted
    for at in range(begin, end):
        part = min(left[at], left[at] - (before - rest)) if before > rest else left[at]
        part = min(max(part, 0.0), rest)
        if part >= least or part == rest:
            chunks[at] = part
        left[at] -= part
        before -= left[at] + part
        rest -= part
    without = max(rest - left[end], 0.0) if visible or chunks else 0.0
    chunks[end] = max(rest, 1e-3 * min(least, wanted))
    left[end] = max(left[end] - rest, 0.0)
    scale = wanted / sum(chunks.values())
    return {at: part * scale for at, part in chunks.items()}, without if without >= least else 0.0


def _guess(left: list[float], begin: int, end: int, usual: float, *, visible: bool) -> dict[int, float]:
    """Return the chunks of a prompt of unknown length: all visible room, else the usual length."""
    chunks = {at: left[at] for at in range(begin, end) if left[at] >= _LEAST_TOKENS}
    for at in chunks:
        left[at] = 0.0
    if visible and left[end] >= _LEAST_TOKENS:
        chunks[end] = left[end]
    elif not chunks:
        chunks[end] = max(min(usual, left[end]), 1.0)
    left[end] = max(left[end] - chunks.get(end, 0.0), 0.0)
    return chunks


def _side_by_side(arrived: Ints, free: Ints, prompts: Prompts, room: Floats) -> Placed:
    """Return chunks of prompts that are computed together, last come first, backwards from first tokens."""
    left, bounds = room.tolist(), arrived.tolist()
    last, wants = prompts.step.tolist(), prompts.tokens.tolist()
    steps: list[int] = []
    rows: list[int] = []
    tokens: list[float] = []
    known = (prompts.reported | (free == prompts.step)).tolist()
    order = np.lexsort((prompts.arrival, prompts.step))[::-1].tolist()
    # Prompts of known length first: what room they leave is what the others can have had.
    for row in sorted(order, key=lambda row: not known[row]):
        chunks = _backwards(left, last[row], bounds[row], wants[row])
        steps += chunks
        rows += [row] * len(chunks)
        tokens += chunks.values()
    return np.array(steps), np.array(rows), np.array(tokens)


def _backwards(left: list[float], last: int, bound: int, wanted: float) -> dict[int, float]:
    """Return the chunks of one prompt by step, as late as there is room; the room is used up."""
    least = max(_LEAST_TOKENS, _LEAST_SHARE * wanted)
    chunks: dict[int, float] = {}
    rest = wanted
    for at in range(last, bound - 1, -1):
        part = min(rest, left[at])
        if rest - part < least:
            part = rest
        if part >= least or part == rest:
            chunks[at] = part
            left[at] = max(left[at] - part, 0.0)
            rest -= part
        if rest <= 0.0:
            break
    chunks.setdefault(last, min(least, wanted) * 1e-3)
    scale = wanted / sum(chunks.values())
    return {at: part * scale for at, part in chunks.items()}
