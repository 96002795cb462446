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
from proxy.core.model import EnergyModel
from proxy.core.work import WIDTH

_STRETCH: Final = 48  # steps a row of the duration fit under a standing queue
_CERTAIN_STEPS: Final = 10
_SILENT: Final = 5.0
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
    earliest = np.minimum(np.searchsorted(begins, prompts.arrival, side="left"), step)
    features = np.zeros((len(stamps), WIDTH + 1))
    features[:, :WIDTH] = decoding
    features[:, 0] = 1.0
    features[:, 3] = np.bincount(step, prompts.tokens, minlength=len(stamps))
    _learn(features, took, _certain(earliest, step, len(stamps)), durations)
    per_token = float(durations.theta[3])
    if not durations.mature or per_token <= 0.0:
        return step, prompts.request, prompts.tokens
    usual = features[:, :3] @ durations.theta[:3]
    room = np.maximum(took - usual, 0.0) / per_token
    step, row, tokens = _lay_back(earliest, prompts, room)
    return step, prompts.request[row], tokens


def _certain(earliest: Ints, step: Ints, steps: int) -> NDArray[np.bool_]:
    """Steps in which no prompt was waiting or half done, so that what they computed is known."""
    spread = earliest < step
    change = np.zeros(steps + 1)
    np.add.at(change, earliest[spread], 1.0)
    np.add.at(change, step[spread] + 1, -1.0)
    return np.asarray(np.cumsum(change)[:steps] == 0.0)


def _learn(features: Floats, took: Floats, certain: NDArray[np.bool_], durations: EnergyModel) -> None:
    """Fit durations: over steps whose work is certain, or, under a standing queue, over long stretches.

    Steps that took far longer than most hold a silence and say nothing.
    """
    if np.count_nonzero(features[certain, 3]) >= _CERTAIN_STEPS:
        rows, seconds = features[certain], took[certain]
    else:
        stretch = np.arange(len(took)) // _STRETCH
        rows = np.stack([np.bincount(stretch, column) for column in features.T], axis=1)
        seconds = np.bincount(stretch, took).astype(float)
    usable = (seconds > 0.0) & (seconds < _SILENT * float(np.quantile(seconds, 0.9)))
    durations.learn(rows[usable], seconds[usable], seconds[usable])


def _lay_back(earliest: Ints, prompts: Prompts, room: Floats) -> tuple[Ints, Ints, Floats]:
    """Each prompt into the room of its steps, last come first, backwards from its first token."""
    left = room.tolist()
    step_out: list[int] = []
    row_out: list[int] = []
    tokens_out: list[float] = []
    order = np.lexsort((prompts.arrival, prompts.step))[::-1]
    for row in order.tolist():
        last = int(prompts.step[row])
        first = int(earliest[row])
        wanted = float(prompts.tokens[row])
        least = max(_LEAST_TOKENS, _LEAST_SHARE * wanted)
        at, rest = last, wanted
        chunks: list[tuple[int, float]] = []
        while at >= first and rest > 0.0:
            take = min(rest, left[at])
            if at == first or rest - take < least:
                take = rest
            if take >= least or take == rest:
                chunks.append((at, take))
                left[at] = max(left[at] - take, 0.0)
                rest -= take
            at -= 1
        if not chunks or chunks[0][0] != last:
            chunks.insert(0, (last, min(least, wanted) * 1e-3))
        scale = wanted / sum(tokens for _, tokens in chunks)
        for place_at, tokens in chunks:
            step_out.append(place_at)
            row_out.append(row)
            tokens_out.append(tokens * scale)
    return np.array(step_out), np.array(row_out), np.array(tokens_out)
