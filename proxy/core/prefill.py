"""Prefill: in which steps the prompt of each request was computed.

An engine computes prompts in chunks under a token budget that the proxy cannot see. It need not: a step that
computes prompt tokens takes longer, so the durations of the steps tell how many there were. The usual
duration of a step is fitted (base, per decoding stream, per context token, per prompt token) to steps of
which it is certain what they computed; then each prompt is laid back from the step of its first token,
first come first served, into the time those steps took beyond what decoding explains.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.bursts import Floats, Ints
from proxy.core.model import PRIOR, EnergyModel
from proxy.core.work import WIDTH

_CERTAIN_STEPS: Final = 10
_ROUNDS: Final = 4  # of placing prompts and fitting durations in turn, until there is a fit
_SILENT: Final = 5.0
_OUTLIER: Final = 3.0  # residuals beyond so many typical ones teach nothing
_LEAST_SHARE: Final = 0.05  # of a prompt: less is noise, not a chunk
_LEAST_TOKENS: Final = 16.0


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts to be placed, (P,) each: request index, step of the first token, arrival (s), tokens."""

    request: Ints
    step: Ints
    arrival: Floats
    tokens: Floats


def place(
    begins: Floats, stamps: Floats, decoding: Floats, prompts: Prompts, durations: EnergyModel
) -> tuple[Ints, Ints, Floats]:
    """Chunks (step, request, tokens) of all prompts; ``decoding`` (B, 4) are the features of decode alone.

    ``durations`` is the fit of step durations; it learns from these steps.
    """
    step = prompts.step
    if len(stamps) < 2 or not len(step):
        return step, prompts.request, prompts.tokens
    took = stamps - begins
    view = _View(_decode_only(decoding), took, *_earliest(begins, prompts), prompts)
    if durations.mature:
        placed = view.placed(durations.theta[:WIDTH])
        view.teach(durations, placed, durations.theta[:WIDTH])
    else:
        placed = view.first_placed(durations)
    step, row, tokens = placed
    return step, prompts.request[row], tokens


def _decode_only(decoding: Floats) -> Floats:
    features = decoding.copy()
    features[:, 0] = 1.0
    return features


def _earliest(begins: Floats, prompts: Prompts) -> tuple[Ints, Ints]:
    """The first step each prompt can have been in (P,), by its arrival; and by the prompt finished before it.

    Engines compute one prompt after the other (vLLM and SGLang at most one is half done).
    """
    arrived = np.minimum(np.searchsorted(begins, prompts.arrival, side="left"), prompts.step)
    order = np.lexsort((prompts.arrival, prompts.step))
    finished = np.empty(len(order), np.int64)
    finished[order[1:]] = prompts.step[order[:-1]]
    finished[order[0]] = 0
    return arrived, np.maximum(arrived, finished)


@dataclass(frozen=True, slots=True)
class _View:
    """Steps of a block and the prompts to be laid into them."""

    decoding: Floats  # (B, 4)
    took: Floats  # (B,) seconds
    arrived: Ints  # (P,)
    free: Ints  # (P,)
    prompts: Prompts

    def whole(self) -> tuple[Ints, Ints, Floats]:
        """Each prompt in the step of its first token."""
        return self.prompts.step, np.arange(len(self.prompts.step)), self.prompts.tokens

    def placed(self, theta: Floats) -> tuple[Ints, Ints, Floats]:
        """Each prompt where the durations leave room for it."""
        if theta[3] <= 0.0:
            return self.whole()
        room = np.maximum(self.took - self.decoding @ theta, 0.0) / theta[3]
        return _lay_back(self.arrived, self.free, self.prompts, room)

    def features(self, placed: tuple[Ints, Ints, Floats]) -> Floats:
        rows = np.zeros((len(self.took), WIDTH + 1))
        rows[:, :WIDTH] = self.decoding
        rows[:, 3] = np.bincount(placed[0], placed[2], minlength=len(rows))
        return rows

    def typical(self, rows: Floats, theta: Floats) -> tuple[NDArray[np.bool_], float]:
        """Steps that took about as long as their work says, and the scale of the others' doubt."""
        usable = self.took < _SILENT * float(np.quantile(self.took, 0.95))
        residual = np.abs(self.took - rows[:, :WIDTH] @ theta)
        scale = float(np.median(residual[usable])) if usable.any() else 0.0
        return usable & (residual <= _OUTLIER * max(scale, 1e-4 * float(np.median(self.took)))), scale

    def teach(self, durations: EnergyModel, placed: tuple[Ints, Ints, Floats], theta: Floats) -> float:
        """Fit durations to the typical steps; returns the typical residual."""
        rows = self.features(placed)
        typical, scale = self.typical(rows, theta)
        durations.learn(rows[typical], self.took[typical], self.took[typical])
        return scale

    def first_placed(self, durations: EnergyModel) -> tuple[Ints, Ints, Floats]:
        """Without a fit: place and fit in turn, from two sides, and keep what explains the steps better."""
        best: tuple[float, EnergyModel, tuple[Ints, Ints, Floats]] | None = None
        scaled = np.array(PRIOR)
        placed = self.whole()
        total = self.features(placed).sum(axis=0)[:WIDTH]
        scaled *= float(self.took.sum()) / max(float(total @ scaled), 1e-12)
        for start in (placed, self.placed(scaled)):
            placed, theta = start, None
            for _ in range(_ROUNDS):
                trial = durations.copy()
                theta = self._robust(trial, placed, theta)
                placed = self.placed(theta)
            rows = self.features(placed)
            _, scale = self.typical(rows, theta)
            if best is None or scale < best[0]:
                best = (scale, trial, placed)
        durations.adopt(best[1])
        return best[2]

    def _robust(self, trial: EnergyModel, placed: tuple[Ints, Ints, Floats], theta: Floats | None) -> Floats:
        rows = self.features(placed)
        if theta is None:
            probe = trial.copy()
            probe.learn(rows, self.took, self.took)
            theta = probe.theta[:WIDTH]
        self.teach(trial, placed, theta)
        return trial.theta[:WIDTH]


def _lay_back(arrived: Ints, free: Ints, prompts: Prompts, room: Floats) -> tuple[Ints, Ints, Floats]:
    """Each prompt into the room of its steps, last come first, backwards from its first token.

    Back to the step in which the prompt before it was finished; further only for what finds no room there.
    """
    left = room.tolist()
    step_out: list[int] = []
    row_out: list[int] = []
    tokens_out: list[float] = []
    order = np.lexsort((prompts.arrival, prompts.step))[::-1]
    for row in order.tolist():
        last, wanted = int(prompts.step[row]), float(prompts.tokens[row])
        least = max(_LEAST_TOKENS, _LEAST_SHARE * wanted)
        chunks: dict[int, float] = {}
        rest = wanted
        for at in range(last, int(arrived[row]) - 1, -1):
            take = min(rest, left[at])
            if rest - take < least:
                take = rest
            if take >= least or take == rest:
                chunks[at] = take
                left[at] = max(left[at] - take, 0.0)
                rest -= take
            if rest <= 0.0 or (at <= free[row] and rest < 0.3 * wanted):
                break
        if last not in chunks:
            chunks[last] = min(least, wanted) * 1e-3
        scale = wanted / sum(chunks.values())
        for at, tokens in chunks.items():
            step_out.append(at)
            row_out.append(row)
            tokens_out.append(tokens * scale)
    return np.array(step_out), np.array(row_out), np.array(tokens_out)
