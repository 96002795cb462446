"""The cost of one engine step on a roofline device, and each request's fair share of it.

A step reads the weights once and the KV cache of every request in it, and computes every token in it. Its
length lies between the maximum of the two times (perfect overlap) and their sum (none)::

    length = overhead + (memory^p + compute^p)^(1/p)          p = 1: sum, p = infinity: maximum
    joules = watts * length + memory_watts * memory + compute_watts * compute

The fair share is the Shapley value of the game over the requests in the step: the mean, over random orders of
joining, of what a request adds. Where the maximum changes sides between coalitions it is neither the linear
split nor a split by the regime of the step.

Shares no code and no constants with ``proxy``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_CLOCK = 0.35
# Random orders of joining, each also taken backwards: where one request computes far more than another,
# its gain
# depends on when it joins.
_ORDERS = 96
_ORDERS_OF_ALIKE = 8
_ALIKE = 8.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A model on a device. Seconds, watts, tokens.

    Attributes:
        overhead_s: length of an empty step.
        weights_s: time to read all weights.
        context_s: time to read one token of KV cache.
        token_s: time to compute one token at the full clock.
        watts: drawn for as long as a step lasts.
        memory_watts: beside that, while memory is read.
        compute_watts: beside that, while tokens are computed at the full clock.
        idle_watts: drawn between steps.
        overlap: the exponent p; 1 is the sum of both times, infinity the maximum.
        cap_watts: power limit that lowers the clock, or None.
        dense: share of the weights that every token reads; of the experts (the rest) each token reads a part.
        expert_share: part of the experts that one token reads.
    """

    overhead_s: float = 9e-4
    weights_s: float = 5.2e-3
    context_s: float = 4.3e-8
    token_s: float = 2.3e-5
    watts: float = 205.0
    memory_watts: float = 190.0
    compute_watts: float = 330.0
    idle_watts: float = 88.0
    overlap: float = math.inf
    cap_watts: float | None = None
    dense: float = 1.0
    expert_share: float = 0.0

    def weights(self, tokens: Floats) -> Floats:
        """Seconds to read the weights that a number of tokens needs; 0 for none."""
        experts = 1.0 - (1.0 - self.expert_share) ** tokens
        return np.asarray(
            np.where(tokens > 0.0, self.weights_s * (self.dense + (1.0 - self.dense) * experts), 0.0)
        )

    def busy(self, memory: Floats, compute: Floats) -> Floats:
        """Length of a step without its overhead."""
        if math.isinf(self.overlap):
            return np.maximum(memory, compute)
        return np.asarray((memory**self.overlap + compute**self.overlap) ** (1.0 / self.overlap))

    def joules(self, memory: Floats, compute: Floats, tokens: Floats, clock: float) -> Floats:
        """Return the joules of coalitions, by their seconds of reading KV and of computing at full clock."""
        memory = memory + self.weights(tokens)
        length = np.where(tokens > 0.0, self.overhead_s, 0.0) + self.busy(memory, compute / clock)
        return np.asarray(
            self.watts * length + self.memory_watts * memory + self.compute_watts * compute * clock**2
        )

    def length(self, context: float, tokens: float, clock: float = 1.0) -> float:
        """Seconds of a step."""
        memory = self.weights(np.array([tokens])) + self.context_s * context
        return self.overhead_s + float(self.busy(memory, np.array([self.token_s * tokens / clock]))[0])

    def clock(self, context: float, tokens: float) -> float:
        """Return the highest clock, as a share of the full one, at which a step stays below the limit."""
        if self.cap_watts is None:
            return 1.0
        memory, compute = np.array([self.context_s * context]), np.array([self.token_s * tokens])
        many = np.array([tokens])
        low, high = _LEAST_CLOCK, 1.0
        for _ in range(20):
            middle = 0.5 * (low + high)
            power = self.joules(memory, compute, many, middle)[0] / self.length(context, tokens, middle)
            low, high = (middle, high) if power <= self.cap_watts else (low, middle)
        return high if high > 1.0 - 1e-4 else low

    def shares(
        self, context: Sequence[float], tokens: Sequence[float], clock: float, rng: np.random.Generator
    ) -> Floats:
        """Return the Shapley value of each request in a step, (R,) joules: they sum to the step's joules.

        Args:
            context: tokens of KV cache that each request reads, (R,).
            tokens: that are computed for each, (R,).
            clock: of the step; a coalition is computed at the same clock.
            rng: draws the orders of joining.
        """
        memory = self.context_s * np.asarray(context, float)
        many = np.asarray(tokens, float)
        compute = self.token_s * many
        count = len(memory)
        # The cost that does not depend on the members is split equally; orders are drawn for the rest only,
        # which has a far smaller variance.
        fixed_s = self.overhead_s + self.weights_s * self.dense
        fixed = self.watts * fixed_s + self.memory_watts * self.weights_s * self.dense
        half = _ORDERS if many.max() > _ALIKE * many.min() else _ORDERS_OF_ALIKE
        orders = np.argsort(rng.random((half, count)), axis=1)
        orders = np.concatenate([orders, orders[:, ::-1]])
        read, computed, tokens_in = (np.cumsum(x[orders], axis=1) for x in (memory, compute, many))
        gains = np.diff(self.joules(read, computed, tokens_in, clock) - fixed, axis=1, prepend=0.0)
        rest = np.bincount(orders.ravel(), gains.ravel(), minlength=count) / len(orders)
        return np.asarray(fixed / count + rest)
