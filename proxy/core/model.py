"""The fit: which joules a step, a token, a byte of context and an idle second cost.

For one device and the groups on it, window energy is regressed on what happened in the window::

    E = sum over groups (static*steps + decode*tokens + context*sum(context) + prefill*tokens)
        + idle * idle_seconds

non-negative, with exponential forgetting, by the normal equations (Lawson and Hanson, *Solving Least
Squares Problems*, ch. 23). The state is one small matrix: its cost does not grow with time or load.
The model only sets proportions; the meter sets the sum, so a wrong term moves joules between requests of
one window, never in or out of it.
"""

import copy
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.work import WIDTH

HALF_LIFE_SECONDS: Final = 120.0
MATURE_SECONDS: Final = 8.0
SURE: Final = 0.1  # measured: terms of truth engines are then within 10 %, those of constant batches are out
_RIDGE: Final = 1e-7
_PRIOR_STRENGTH: Final = 0.002
# Published shape, not scale: Llama-3.1-8B on an H100 (ML.ENERGY v3, arXiv 2601.22076). Before there is a fit
# only ratios count, because the meter sets the sum.
PRIOR: Final = (3.0, 0.03, 2.0e-5, 0.015)
PRIOR_IDLE_WATTS: Final = 80.0


class EnergyModel:
    """Feed windows, read terms. ``theta`` is groups x 4 terms (joules), then idle (watts)."""

    __slots__ = ("_gram", "_moment", "_power", "_weight", "groups", "seconds", "theta", "variance")

    def __init__(self, groups: int) -> None:
        self.groups = groups
        size = groups * WIDTH + 1
        self._gram = np.zeros((size, size))
        self._moment = np.zeros(size)
        self._power = 0.0  # weighted sum of squared energy
        self._weight = 0.0  # weighted number of windows
        self.seconds = 0.0  # weighted seconds with requests in the engine
        self.theta = np.concatenate([np.tile(np.array(PRIOR), groups), [PRIOR_IDLE_WATTS]])
        self.variance: float | None = None  # of one window's residual, J^2 per second of window

    @property
    def mature(self) -> bool:
        """Whether enough busy time was seen for the terms to mean something."""
        return self.seconds >= MATURE_SECONDS

    def copy(self) -> "EnergyModel":
        """A model of its own with the same past."""
        return copy.deepcopy(self)

    def widen(self, groups: int) -> None:
        """Make room for more groups; what was learned stays."""
        old = self.groups * WIDTH
        size = groups * WIDTH + 1
        gram, moment = np.zeros((size, size)), np.zeros(size)
        keep = np.concatenate([np.arange(old), [size - 1]])
        gram[np.ix_(keep, keep)] = self._gram
        moment[keep] = self._moment
        theta = np.concatenate([np.tile(np.array(PRIOR), groups), [self.theta[-1]]])
        theta[:old] = self.theta[:old]
        self.groups, self._gram, self._moment, self.theta = groups, gram, moment, theta

    def learn(
        self,
        features: NDArray[np.float64],
        joules: NDArray[np.float64],
        seconds: NDArray[np.float64],
    ) -> None:
        """Take windows: features (n, groups*4 + 1), joules (n,), seconds (n,); then solve.

        Rows are weighted by 1/seconds: the noise of a window's edges does not grow with its length.
        """
        total = float(seconds.sum())
        if not len(joules) or total <= 0.0:
            return
        decay = 0.5 ** (total / HALF_LIFE_SECONDS)
        root = 1.0 / np.sqrt(seconds)
        rows, target = features * root[:, None], joules * root
        self._gram = decay * self._gram + rows.T @ rows
        self._moment = decay * self._moment + rows.T @ target
        self._power = decay * self._power + float(target @ target)
        self._weight = decay * self._weight + len(target)
        busy = float(np.clip(seconds - features[:, -1], 0.0, None).sum())
        self.seconds = decay * self.seconds + busy
        self._solve()

    def _solve(self) -> None:
        scale = np.sqrt(np.diag(self._gram))
        seen = scale > 0.0
        if not seen.any():
            return
        index = np.flatnonzero(seen)
        unit = scale[index]
        gram = self._gram[np.ix_(index, index)] / np.outer(unit, unit)
        moment = self._moment[index] / unit
        prior = self._scaled_prior()[index] * unit
        strength = self._strength
        ridge = strength * np.eye(len(index))
        solution = nonnegative(gram + ridge, moment + strength * prior)
        self.theta[index] = solution / unit
        residual = self._power - 2 * solution @ moment + solution @ gram @ solution
        self.variance = max(float(residual), 0.0) / max(self._weight - len(index), 1.0)

    @property
    def _strength(self) -> float:
        """Weight of the prior, in units of a term's own diagonal."""
        return _RIDGE + _PRIOR_STRENGTH / (1.0 + self._weight)

    def deviations(self) -> NDArray[np.float64]:
        """Standard deviation of each term, in its unit; infinite where nothing was seen.

        From the noise of the windows, and from what the prior had to decide, which may be off by all of its
        value: terms that always came together (the same batch all the time) are not told apart.
        """
        scale = np.sqrt(np.diag(self._gram))
        index = np.flatnonzero(scale > 0.0)
        found = np.full(len(scale), np.inf)
        if self.variance is None or not len(index):
            return found
        unit = scale[index]
        gram = self._gram[np.ix_(index, index)] / np.outer(unit, unit)
        inverse = np.linalg.inv(gram + self._strength * np.eye(len(index)))
        noise = self.variance * np.diag(inverse @ gram @ inverse)
        prior = self._scaled_prior()[index] * unit
        guessed = ((self._strength * inverse * prior) ** 2).sum(axis=1)
        found[index] = np.sqrt(np.clip(noise, 0.0, None) + guessed) / unit
        return found

    def unsure(self) -> NDArray[np.bool_]:
        """Which terms were seen and are not told from the others by the data, (groups * 4 + 1,).

        A term is sure when its standard deviation is at most ``SURE`` of it. Terms that always came together
        are not: the fit then puts all of their joules on one of them, and zero on the other.
        """
        deviations = self.deviations()
        return np.isfinite(deviations) & (deviations > SURE * self.theta)

    def _scaled_prior(self) -> NDArray[np.float64]:
        """The published shape, scaled to this device's energy."""
        shape = np.concatenate([np.tile(np.array(PRIOR), self.groups), [PRIOR_IDLE_WATTS]])
        expected = float(shape @ self._gram @ shape)
        if expected <= 0.0:
            return shape
        return shape * max(float(shape @ self._moment) / expected, 0.0)

    @property
    def windows(self) -> float:
        """Effective number of windows behind the fit."""
        return self._weight

    @property
    def r2(self) -> float | None:
        """Share of the window energies' variance (about zero) that the terms explain."""
        if self.variance is None or self._power <= 0.0:
            return None
        return 1.0 - self.variance * max(self._weight, 1.0) / self._power


def nonnegative(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise x'Gx/2 - m'x over x >= 0 by active sets; G positive definite, small."""
    size = len(moment)
    free = np.ones(size, bool)
    for _ in range(3 * size):
        solution = np.zeros(size)
        if free.any():
            solution[free] = np.linalg.solve(gram[np.ix_(free, free)], moment[free])
        if (solution[free] < 0.0).any():
            free &= solution > 0.0
            continue
        pull = moment - gram @ solution
        worst = int(np.argmax(np.where(free, -np.inf, pull)))
        if free[worst] or pull[worst] <= 1e-12 * abs(moment[worst]):
            return solution
        free[worst] = True
    return np.clip(solution, 0.0, None)
