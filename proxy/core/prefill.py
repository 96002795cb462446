"""Prefill: in which steps the prompt of each request was computed.

An engine computes prompts in chunks under a token budget that the proxy cannot see. It need not: a step that
computes prompt tokens takes longer, so the durations of the steps tell how many there were. The usual
duration of a step is fitted (base, per decoding stream, per context token, per prompt token); then each
prompt is laid back from the step of its first token, one prompt after the other, into the time those steps
took beyond what decoding explains. Placing and fitting feed each other; before there is a fit they take
turns, from two sides (each prompt in one step; budgets always full), and what explains the steps better is
kept.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.bursts import Floats, Ints
from proxy.core.model import PRIOR, EnergyModel
from proxy.core.work import WIDTH

_ROUNDS: Final = 4
_SHORT: Final = 0.3  # of the median time
_SILENT: Final = 5.0  # times longer than most: such a step holds a silence
_OUTLIER: Final = 3.0  # typical residuals; steps beyond teach nothing
_LEAST_SHARE: Final = 0.05  # of a prompt: less is noise, not a chunk
_LEAST_TOKENS: Final = 16.0
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

    ``reported``: whether the engine told the tokens; else they are a guess.
    """

    request: Ints
    step: Ints
    arrival: Floats
    tokens: Floats
    reported: NDArray[np.bool_]


def place(seen: Seen, prompts: Prompts, durations: EnergyModel) -> tuple[Placed, EnergyModel]:
    """Chunks (step, request, tokens) of all prompts, and the fit of step durations, grown by these steps."""
    if len(seen.stamps) < 2 or not len(prompts.step):
        return (prompts.step, prompts.request, prompts.tokens), durations
    view = _View(seen, prompts)
    if durations.mature:
        placed = view.placed(durations.theta[:WIDTH])
        view.teach(durations, placed)
    else:
        durations, placed = view.first_placed(durations)
    step, row, tokens = placed
    return (step, prompts.request[row], tokens), durations


class _View:
    """The steps of a block, and where its prompts can have been."""

    __slots__ = ("_decoding", "_earliest", "_own", "_prompts", "_took")

    def __init__(self, seen: Seen, prompts: Prompts) -> None:
        self._took = seen.stamps - seen.begins
        self._own = (seen.stamps > 0.0) & (seen.stamps <= seen.until)
        self._decoding = np.zeros((len(self._took), WIDTH + 1))
        self._decoding[:, 0] = 1.0
        self._decoding[:, 1] = seen.streams
        self._decoding[:, 2] = seen.context
        self._prompts = prompts
        self._earliest = _earliest(seen.begins, prompts)

    def first_placed(self, durations: EnergyModel) -> tuple[EnergyModel, Placed]:
        """Without a fit: place and fit in turn, from two sides, and keep what explains the steps better."""
        whole = self._whole()
        prior = np.array(PRIOR)
        total = self._features(whole).sum(axis=0)[:WIDTH]
        full = self.placed(prior * float(self._took.sum()) / float(total @ prior))
        best, model, placed = np.inf, durations, whole
        for start in (whole, full):
            trial, at = self._in_turn(durations, start)
            _, doubt = self._typical(self._features(at), trial.theta[:WIDTH])
            if doubt < best:
                best, model, placed = doubt, trial, at
        return model, placed

    def _in_turn(self, durations: EnergyModel, placed: Placed) -> tuple[EnergyModel, Placed]:
        rough = durations.copy()
        rows = self._features(placed)
        self._learn(rough, rows, self._own)
        for _ in range(_ROUNDS):
            trial = durations.copy()
            trial.theta = rough.theta
            self.teach(trial, placed)
            placed = self.placed(trial.theta[:WIDTH])
            rough = trial
        return rough, placed

    def placed(self, theta: Floats) -> Placed:
        """Each prompt where durations (base, stream, context, prompt token; s) leave room for it."""
        if theta[3] <= 0.0:
            return self._whole()
        excess = self._took - self._decoding[:, :WIDTH] @ theta
        return _lay_back(self._earliest, self._prompts, np.maximum(excess, 0.0) / float(theta[3]))

    def teach(self, durations: EnergyModel, placed: Placed) -> None:
        """Fit durations to the typical steps of the block."""
        rows = self._features(placed)
        typical = self._typical(rows, durations.theta[:WIDTH])[0] & self._own
        self._learn(durations, rows, typical)

    def _learn(self, durations: EnergyModel, rows: Floats, which: NDArray[np.bool_]) -> None:
        """Longer steps are less sure; of no length is none, chunks that were read together only look so."""
        took = self._took[which]
        least = _SHORT * float(np.median(took)) if len(took) else 0.0
        durations.learn(rows[which], took, np.maximum(took, least))

    def _whole(self) -> Placed:
        """Each prompt in the step of its first token."""
        return self._prompts.step, np.arange(len(self._prompts.step)), self._prompts.tokens

    def _features(self, placed: Placed) -> Floats:
        rows = self._decoding.copy()
        rows[:, 3] = np.bincount(placed[0], placed[2], minlength=len(rows))
        return rows

    def _typical(self, rows: Floats, theta: Floats) -> tuple[NDArray[np.bool_], float]:
        """Steps that took about as long as their work says; the median residual (s)."""
        usable = self._took < _SILENT * float(np.quantile(self._took, 0.95))
        residual = np.abs(self._took - rows[:, :WIDTH] @ theta)
        doubt = float(np.median(residual[usable]))
        return usable & (residual <= _OUTLIER * max(doubt, 1e-4 * float(np.median(self._took)))), doubt


def _earliest(begins: Floats, prompts: Prompts) -> tuple[Ints, Ints]:
    """The first step each prompt can have been in (P,): by its arrival, and by the prompt finished before it.

    Engines compute one prompt after the other (in vLLM and SGLang at most one is half done).
    """
    arrived = np.minimum(np.searchsorted(begins, prompts.arrival, side="left"), prompts.step)
    order = np.lexsort((prompts.arrival, prompts.step))
    finished = np.zeros(len(order), np.int64)
    finished[order[1:]] = prompts.step[order[:-1]]
    return arrived, np.maximum(arrived, finished)


def _lay_back(earliest: tuple[Ints, Ints], prompts: Prompts, room: Floats) -> Placed:
    """Each prompt into the room (tokens) of its steps, last come first, backwards from its first token.

    Back to the step in which the prompt before it was finished. Where much finds no room there, the engine
    computes several prompts side by side, and only their arrival bounds them.
    """
    arrived, free = earliest
    placed, lost = _lay(free, free, prompts, room)
    if lost > _LOST_SHARE:
        return _lay(arrived, free, prompts, room)[0]
    return placed


def _lay(bound: Ints, free: Ints, prompts: Prompts, room: Floats) -> tuple[Placed, float]:
    """Chunks of all prompts, and the share of their tokens that found no room."""
    left, bounds, frees = room.tolist(), bound.tolist(), free.tolist()
    steps: list[int] = []
    rows: list[int] = []
    tokens: list[float] = []
    last, wants = prompts.step.tolist(), prompts.tokens.tolist()
    # In a step that finished several prompts, what room is whose cannot be told: the usual length is better.
    known = (prompts.reported | (free == prompts.step)).tolist()
    order = np.lexsort((prompts.arrival, prompts.step))[::-1].tolist()
    lost = 0.0
    # Prompts of known length first: what room they leave is what the others can have had.
    for row in sorted(order, key=lambda row: not known[row]):
        if known[row]:
            chunks, rest = _fill(left, last[row], bounds[row], wants[row])
            lost += rest
        else:
            chunks = _guess(left, last[row], frees[row], wants[row])
        steps += chunks
        rows += [row] * len(chunks)
        tokens += chunks.values()
    return (np.array(steps), np.array(rows), np.array(tokens)), lost / sum(wants)


def _fill(left: list[float], last: int, bound: int, wanted: float) -> tuple[dict[int, float], float]:
    """Chunks of one prompt by step, and the tokens without room; takes the room."""
    least = max(_LEAST_TOKENS, _LEAST_SHARE * wanted)
    if wanted - left[last] < least:  # most prompts
        left[last] = max(left[last] - wanted, 0.0)
        return {last: wanted}, 0.0
    chunks: dict[int, float] = {}
    rest = wanted
    for at in range(last, bound - 1, -1):
        take = min(rest, left[at])
        if rest - take < least:
            take = rest
        if take >= least or take == rest:
            chunks[at] = take
            left[at] = max(left[at] - take, 0.0)
            rest -= take
        if rest <= 0.0:
            break
    chunks.setdefault(last, min(least, wanted) * 1e-3)
    scale = wanted / sum(chunks.values())
    return {at: tokens * scale for at, tokens in chunks.items()}, rest


def _guess(left: list[float], last: int, free: int, usual: float) -> dict[int, float]:
    """Chunks of a prompt nobody told the length of: all the room since the prompt before it."""
    chunks = {}
    for at in range(last, free if free < last else last - 1, -1):
        if left[at] >= _LEAST_SHARE * usual:
            chunks[at] = left[at]
            left[at] = 0.0
        elif at < last:
            break
    return chunks or {last: 1.0}
