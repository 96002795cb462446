"""The fair share of each request in a step: the Shapley value of the time that the step takes.

A coalition S of a step's requests would have taken::

    v(S) = overhead + combine(weights + memory(S), compute(S))

The Shapley value of a request is what it adds to the requests that joined before it, on the mean over all
orders of joining. Its multilinear form (Owen, *Multilinear Extensions of Games*, 1972) draws each other
request with probability t and averages over t from 0 to 1. Decoding requests are many and small: at t, a
share t of their work is there (the Aumann-Shapley value), and a request adds its own work times the slope.
Prompts are few and large, so each of their subsets is looked at. The result: prices of one unit of context
and of decoding in each step, and the price of each prompt.

Overhead and weights are split equally: whoever joins first causes them. So are joules that do not depend on
who is in a step; joules by bytes or by tokens are each request's own. Energy enters in ``work`` by fitted
terms.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.fit.step_time import StepTime, combine, slopes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LARGE: Final = 4  # prompts of a step that are looked at one by one; further ones are small beside these
_NODES, _WEIGHTS = (  # of t, (T, 1) each
    0.5 * (np.polynomial.legendre.leggauss(6)[0] + 1.0)[:, None],
    0.5 * np.polynomial.legendre.leggauss(6)[1][:, None],
)


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds that a unit of work adds to a step, fairly: by step (C,), and of each prompt (N,)."""

    context: Floats  # of a token of context
    decode: Floats  # of a decoding stream
    prefill: Floats  # of a prompt token of requests that compute few of them
    prompt: Floats  # of all prompt tokens of a request in a step, and of the context they read


def fair_seconds(
    time: StepTime,
    streams: Floats,
    context: Floats,
    spread: Floats,
    step: Ints,
    tokens: Floats,
    read: Floats,
) -> Prices:
    """Divide the seconds of steps beyond their fixed part.

    Args:
        time: the time of a step.
        streams: decoding streams of each step, (C,).
        context: tokens of context that they read, (C,).
        spread: prompt tokens of many requests that each compute few of them, of each step, (C,).
        step: the step of each prompt, (N,).
        tokens: its tokens computed there, (N,).
        read: its tokens of context read there, of a cached prefix and of its earlier part, (N,).

    Returns:
        The prices; with the fixed part they sum to ``time.seconds`` for each step.
    """
    if time.p == 1.0:  # costs that add up are each request's own
        ones = np.ones(len(streams))
        prompt = time.context * read + time.prefill * tokens
        return Prices(time.context * ones, time.decode * ones, time.prefill * ones, prompt)
    large = _Large(time, step, tokens, read, len(streams))
    memory = time.context * context + large.rest_memory
    compute = time.compute(streams, spread) + large.rest_compute
    by_memory, by_compute = np.zeros(len(streams)), np.zeros(len(streams))
    gains = np.zeros(large.memory.shape)
    for members in range(1 << large.most):
        rows, chance = large.subset(members)
        if not len(rows):
            continue
        inside = large.inside(members)
        m = time.weights + _NODES * memory[rows] + large.memory[rows][:, inside].sum(axis=1)
        c = _NODES * compute[rows] + large.compute[rows][:, inside].sum(axis=1)
        both = combine(time.p, m, c)
        by_m, by_c = slopes(time.p, m, c, both)
        by_memory[rows] += (chance * by_m).sum(axis=0)
        by_compute[rows] += (chance * by_c).sum(axis=0)
        for other in np.flatnonzero(~inside).tolist():
            there = large.there[rows, other]
            at = rows[there]
            if len(at):
                with_it = combine(
                    time.p, m[:, there] + large.memory[at, other], c[:, there] + large.compute[at, other]
                )
                # ``chance`` holds that it has not joined; given where the others are, it joins at any t.
                joins = chance[:, there] / (1.0 - _NODES)
                gains[at, other] += (joins * (with_it - both[:, there])).sum(axis=0)
    return Prices(
        time.context * by_memory,
        time.decode * by_compute,
        time.prefill * by_compute,
        large.prices(gains, by_memory, by_compute, time),
    )


class _Large:
    """The prompts of each step in columns: up to ``_LARGE`` of them, the largest first."""

    def __init__(self, time: StepTime, step: Ints, tokens: Floats, read: Floats, steps: int) -> None:
        order = np.lexsort((-tokens, step))
        sorted_step = step[order]
        rank = np.empty(len(step), np.int64)
        rank[order] = np.arange(len(step)) - np.searchsorted(sorted_step, sorted_step, side="left")
        self.step, self.rank, self.tokens, self.read = step, rank, tokens, read
        self._is_large = large = rank < _LARGE
        self.most = int(rank[large].max()) + 1 if len(step) else 0
        shape = (steps, max(self.most, 1))
        self.memory, self.compute, self.there = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        at = step[large], rank[large]
        self.memory[at], self.compute[at] = time.context * read[large], time.prefill * tokens[large]
        self.there[at] = True
        small = step[~large]
        self.rest_memory = np.bincount(small, time.context * read[~large], minlength=steps)
        self.rest_compute = np.bincount(small, time.prefill * tokens[~large], minlength=steps)
        self._count = self.there.sum(axis=1)

    def inside(self, members: int) -> NDArray[np.bool_]:
        """Return which columns a subset, given as bits, holds."""
        return np.array([bool(members >> i & 1) for i in range(self.there.shape[1])])

    def subset(self, members: int) -> tuple[Ints, Floats]:
        """Return the steps with all members of a subset, (S,), and the chance that exactly these have joined.

        The chance is by node t, times the node's weight, (T, S).
        """
        size = members.bit_length()  # columns are filled from the first
        rows = np.flatnonzero(self._count >= size)
        joined = members.bit_count()
        return rows, _WEIGHTS * _NODES**joined * (1.0 - _NODES) ** (self._count[rows] - joined)

    def prices(self, gains: Floats, by_memory: Floats, by_compute: Floats, time: StepTime) -> Floats:
        """Return the seconds of each prompt, (N,): its gain, or for small ones its work times the slopes."""
        by_slope = by_memory[self.step] * time.context * self.read
        by_slope += by_compute[self.step] * time.prefill * self.tokens
        column = np.minimum(self.rank, gains.shape[1] - 1)
        return np.where(self._is_large, gains[self.step, column], by_slope)
