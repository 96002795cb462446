"""The fit: which joules a step, a token, a byte of context and an idle second cost.

For one device and the groups on it, window energy is regressed on what happened in the window::

    E = sum over groups (static*steps + decode*tokens + context*sum(context) + prefill*tokens
                         + power*seconds of steps) + idle * idle_seconds

non-negative, with exponential forgetting, by the normal equations (Lawson and Hanson, *Solving Least
Squares Problems*, ch. 23). The state is one small matrix: its cost does not grow with time or load.
The model only sets proportions; the meter sets the sum, so a wrong term moves joules between requests of
one window, never in or out of it.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.work import PARTS, SECONDS, WIDTH
from proxy.core.numerics.nonnegative import nonnegative
from proxy.core.numerics.order_statistics import median

HALF_LIFE_SECONDS: Final = 120.0
MATURE_SECONDS: Final = 8.0
SURE: Final = 0.1  # measured: terms of truth engines are then within 10 %, those of constant batches are out
_RIDGE: Final = 1e-7
_PRIOR_STRENGTH: Final = 0.002
_PRIOR_DEVIATION: Final = 1.0  # of a term, relative: published devices and models differ that much
_ROUNDS: Final = 3
_OPEN: Final = 0.3  # of the energy: what a term may be that the data does not determine (assumed)
_LEAST_NOISE: Final = 0.003  # of a window's energy: the edges of counters are taken to be known no better
# Of the squared steps of a window (two in sixteen). Measured on two alternating models: without it the median
# error is 24 % in some seeds; between 4e-3 and 1.6e-2 it is 1.6 to 3.8 % in one that can be separated.
_STEP_ERROR: Final = 8e-3
_ACTIVE: Final = 1e-3  # of the steps of the busiest engine
_MANY: Final = 16  # windows learned at once, of which one that does not fit is known from the others
_REWEIGHTED: Final = 16  # times at most
_ABSOLUTE: Final = 10  # first times by absolute residuals, which no single window can bend
_SETTLED: Final = 0.01  # change of the weights at which this ends
_OUTLIER: Final = 4.0  # standard deviations
_NEAR: Final = 0.3  # the same, up to which residuals count squared in the first times
_PARTS_KEPT: Final = 0.95  # of what was seen before, by each block
# Published shape, not scale: Llama-3.1-8B on an H100 (ML.ENERGY v3, arXiv 2601.22076). Before there is a fit
# only ratios count, because the meter sets the sum. The last term is the power (W) that a busy device always
# draws. How the published joules divide into power and the rest is an assumption; it only breaks ties.
PRIOR: Final = (1.7, 0.02, 1.8e-5, 0.009, 200.0)
PRIOR_IDLE_WATTS: Final = 80.0


class EnergyModel:
    """Feed windows, read terms. ``theta`` is groups x 5 terms (joules; watts), then idle (watts)."""

    __slots__ = (
        "_covariance", "_gram", "_happened", "_moment", "_parts", "_power", "_solved", "_weight", "groups",
        "seconds", "theta", "variance",
    )  # fmt: skip

    def __init__(self, groups: int) -> None:
        self.groups = groups
        size = groups * WIDTH + 1
        self._gram = np.zeros((size, size))
        self._moment = np.zeros(size)
        self._happened = np.zeros(size)  # weighted sum of the features
        self._power = 0.0  # weighted sum of squared energy
        self._weight = 0.0  # weighted number of windows
        self._parts: dict[int, NDArray[np.float64]] = {}
        self.seconds = 0.0  # weighted seconds with requests in the engine
        self.theta = np.concatenate([np.tile(np.array(PRIOR), groups), [PRIOR_IDLE_WATTS]])
        self.variance: float | None = None  # of one window's residual, J^2 per second of window
        self._solved: NDArray[np.float64] | None = None  # the last solution, where the next search begins
        self._covariance: NDArray[np.float64] | None = None  # until more is learned

    @property
    def mature(self) -> bool:
        """Return whether enough busy time was seen for the terms to mean something."""
        return self.seconds >= MATURE_SECONDS

    def widen(self, groups: int) -> None:
        """Make room for more groups; what was learned stays."""
        old = self.groups * WIDTH
        size = groups * WIDTH + 1
        gram, moment = np.zeros((size, size)), np.zeros(size)
        keep = np.concatenate([np.arange(old), [size - 1]])
        gram[np.ix_(keep, keep)] = self._gram
        moment[keep] = self._moment
        happened = np.zeros(size)
        happened[keep] = self._happened
        theta = np.concatenate([np.tile(np.array(PRIOR), groups), [self.theta[-1]]])
        theta[:old] = self.theta[:old]
        self.groups, self._gram, self._moment, self.theta = groups, gram, moment, theta
        self._happened = happened
        self._covariance = None

    def learn(
        self,
        features: NDArray[np.float64],
        joules: NDArray[np.float64],
        seconds: NDArray[np.float64],
    ) -> None:
        """Take windows: features (n, groups*5 + 1), joules (n,), seconds (n,); then solve.

        Rows are weighted by 1/seconds: the noise of a window's edges does not grow with its length. Of many
        at once, those that differ by far from the others count less.
        """
        total = float(seconds.sum())
        if not len(joules) or total <= 0.0:
            return
        decay = 0.5 ** (total / HALF_LIFE_SECONDS)
        root = 1.0 / np.sqrt(seconds)
        rows, target = features * root[:, None], joules * root
        self._happened = decay * self._happened + features.sum(axis=0)
        busy = float(np.clip(seconds - features[:, -1], 0.0, None).sum())
        self.seconds = decay * self.seconds + busy
        gram, moment = decay * self._gram, decay * self._moment
        power, count = decay * self._power, decay * self._weight
        trust = np.ones(len(target))
        for turn in range(_REWEIGHTED if len(target) >= _MANY else 1):
            weighted = rows * trust[:, None]
            self._gram, self._moment = gram + weighted.T @ rows, moment + weighted.T @ target
            self._power, self._weight = power + float((trust * target) @ target), count + float(trust.sum())
            self._covariance = None
            self._solve()
            fresh = _trust(target, rows @ self.theta, absolute=turn < _ABSOLUTE)
            if turn > _ABSOLUTE and np.allclose(fresh, trust, atol=_SETTLED):
                break
            trust = fresh

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
        shared = self._shared()[index]
        solution = self._solved if self._solved is not None and len(self._solved) == len(index) else None
        for _ in range(_ROUNDS):  # the noise decides how much the prior weighs, and the prior the noise
            strength = self._strength(prior) + shared
            solution = nonnegative(gram + np.diag(strength), moment + strength * prior, solution)
            residual = self._power - 2 * solution @ moment + solution @ gram @ solution
            self.variance = max(float(residual), 0.0) / max(self._weight - len(index), 1.0)
        assert solution is not None
        self._solved = solution
        self.theta[index] = solution / unit

    def _shared(self) -> NDArray[np.float64]:
        """Return the additional weight of the prior of each term where several engines share the device.

        How many steps of each engine lie in a window is known to a part of a step. Where they alternate, such
        errors are as large as what distinguishes their steps, and the fit must not follow them.
        """
        weight = np.zeros(self.groups * WIDTH + 1)
        steps = self._happened[:-1:WIDTH]
        # An engine that has been idle for many half-lives, or was found to be several, shares nothing.
        if np.count_nonzero(steps > _ACTIVE * steps.max(initial=0.0)) > 1:
            weight[:-1:WIDTH] = weight[SECONDS:-1:WIDTH] = _STEP_ERROR
        return weight

    def _strength(self, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weight of the prior of each term, in units of its diagonal: noise over its variance.

        Before the noise is known it falls with the number of windows.
        """
        if self.variance is None:
            return np.full(len(prior), _RIDGE + _PRIOR_STRENGTH / (1.0 + self._weight))
        return np.asarray(_RIDGE + self._noise / np.maximum(_PRIOR_DEVIATION * prior, 1e-12) ** 2)

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of the terms, (n, n) in their units squared; infinite where nothing was seen.

        That of a Bayesian linear regression: terms that always came together (the same batch all the time)
        are not separable, and are as unsure as the prior. Not to be changed by the caller.
        """
        if self._covariance is None:
            self._covariance = self._find_covariance()
        return self._covariance

    def _find_covariance(self) -> NDArray[np.float64]:
        scale = np.sqrt(np.diag(self._gram))
        index = np.flatnonzero(scale > 0.0)
        found = np.diag(np.full(len(scale), np.inf))
        if self.variance is None or not len(index):
            return found
        unit = scale[index]
        gram = self._gram[np.ix_(index, index)] / np.outer(unit, unit)
        prior = self._scaled_prior()[index] * unit
        # A term that the data leaves open may be far from the prior that breaks the tie.
        wide = np.maximum(np.maximum(prior, _OPEN * np.sqrt(self._power)), 1e-12)
        inverse = np.linalg.inv(gram + np.diag(_RIDGE + self._noise / wide**2))
        found[np.ix_(index, index)] = self._noise * inverse / np.outer(unit, unit)
        return found

    @property
    def _noise(self) -> float:
        """Return the variance of a window's residual: as found, but no less than its edges allow."""
        least = _LEAST_NOISE**2 * self._power / max(self._weight, 1.0)
        return max(self.variance or 0.0, least)

    def deviations(self) -> NDArray[np.float64]:
        """Return the standard deviation of each term, in its unit; infinite where nothing was seen."""
        return np.asarray(np.sqrt(np.diag(self.covariance())))

    def see_parts(self, slot: int, amounts: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
        """Note what a group did: the amount of each part, (4,), and the fair seconds that it took, (4,)."""
        if slot not in self._parts:
            self._parts[slot] = np.zeros((2, len(PARTS)))
        self._parts[slot] = _PARTS_KEPT * self._parts[slot] + np.stack([amounts, seconds])

    def parts(self, slot: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the joules of a unit of each part of a group, and their deviations, (4,) each.

        The time that a part takes is included. Infinite where a part was not seen.
        """
        amounts, seconds = self._parts.get(slot, np.zeros((2, len(PARTS))))
        ratio = np.divide(seconds, amounts, out=np.zeros(len(PARTS)), where=amounts > 0.0)
        first = slot * WIDTH
        own, time = np.arange(first, first + len(PARTS)), first + len(PARTS)
        value = self.theta[own] + self.theta[time] * ratio
        covariance = self.covariance()
        of_time = float(covariance[time, time])
        variance = (
            covariance.diagonal()[own]
            + ratio**2 * (of_time if math.isfinite(of_time) else 0.0)
            + 2 * ratio * covariance[own, time]
        )
        return value, np.sqrt(np.maximum(variance, 0.0))

    def unsure(self, slot: int) -> NDArray[np.bool_]:
        """Return which parts of a group were seen and cannot be separated from the others, (4,).

        A part is sure when its standard deviation is at most ``SURE`` of it.
        """
        value, deviation = self.parts(slot)
        return np.isfinite(deviation) & (deviation > SURE * value)

    def _scaled_prior(self) -> NDArray[np.float64]:
        """Return the published shape, scaled to this device's energy."""
        shape = np.concatenate([self._prior_of_groups(), [PRIOR_IDLE_WATTS]])
        expected = float(shape @ self._gram @ shape)
        if expected <= 0.0:
            return shape
        return shape * max(float(shape @ self._moment) / expected, 0.0)

    def _prior_of_groups(self) -> NDArray[np.float64]:
        """Return the published shape for each group, so that all of them draw the same power on the mean.

        Where the steps of two engines strictly alternate, the data determines the sum of their static terms
        only. A model whose steps last longer then costs more in proportion.
        """
        shape = np.tile(np.array(PRIOR), (self.groups, 1))
        happened = self._happened[:-1].reshape(self.groups, WIDTH)
        expected, seconds = (happened * shape).sum(axis=1), happened[:, -1]
        if self.groups > 1 and (expected > 0.0).all() and (seconds > 0.0).all():
            shape *= (seconds / expected * (expected.sum() / seconds.sum()))[:, None]
        return shape.ravel()

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


def _trust(
    joules: NDArray[np.float64], expected: NDArray[np.float64], *, absolute: bool
) -> NDArray[np.float64]:
    """Return the weight of each window in the fit, (n,): 1, and less for one that differs by far.

    What is seen least well is what happened first: prompts that came before the readings, and steps before
    their pace was known. A few such windows moved the terms by tens of percent. The influence of a window on
    the fit falls with the square of its residual beyond the bound (iteratively reweighted least squares).
    """
    residual = np.abs(joules - expected)
    spread = np.maximum(1.4826 * median(residual), _LEAST_NOISE * np.abs(joules))
    if absolute:
        return np.asarray(np.minimum(1.0, _NEAR * spread / np.maximum(residual, 1e-12)))
    return np.asarray(np.minimum(1.0, _OUTLIER * spread / np.maximum(residual, 1e-12)) ** 2)
