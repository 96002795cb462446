"""Shapley values from the measured cost of every coalition, with the error that follows from it.

The value of player i among n is the sum over coalitions S without i of ``|S|! (n - |S| - 1)! / n!`` times
what i adds to S (Shapley, *A value for n-person games*, 1953). It is linear in the costs, so independent
errors of the costs add up in squares.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean and standard error of a measured quantity."""

    mean: float
    error: float


def shapley_by_kind(counts: Sequence[int], cost: Callable[[tuple[int, ...]], Measured]) -> list[Measured]:
    """Return the Shapley value of one player of each kind, where players of a kind cost the same.

    Args:
        counts: players of each kind, all above 0.
        cost: of the coalition with so many players of each kind; the empty coalition costs 0 and is not
            measured.

    A coalition is measured once, however many sets of players it represents.
    """
    players = sum(counts)
    values = []
    for kind in range(len(counts)):
        weights: dict[tuple[int, ...], float] = {}
        for others in product(*(range(c - (k == kind) + 1) for k, c in enumerate(counts))):
            size = sum(others)
            ways = math.prod(
                math.comb(c - (k == kind), o) for k, (c, o) in enumerate(zip(counts, others, strict=True))
            )
            weight = ways / (players * math.comb(players - 1, size))
            joined = tuple(o + (k == kind) for k, o in enumerate(others))
            weights[joined] = weights.get(joined, 0.0) + weight
            weights[others] = weights.get(others, 0.0) - weight
        known = {s: cost(s) for s in weights if any(s)}
        mean = sum(weights[s] * measured.mean for s, measured in known.items())
        error = math.sqrt(sum((weights[s] * measured.error) ** 2 for s, measured in known.items()))
        values.append(Measured(mean, error))
    return values
