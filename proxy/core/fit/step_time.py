"""How long a step of an engine takes, and which form that time has.

A step reads weights and KV cache and computes tokens. On real devices the two overlap in part, so its length
lies between their sum and their maximum (the roofline)::

    seconds = overhead + (memory^p + compute^p)^(1/p)      p = 1: the sum ... p = infinity: the maximum
    memory  = weights + context * tokens of context read
    compute = decode * decoding streams + prefill * prompt tokens

The form matters: a fair share follows from what a coalition of the step's requests would have taken, and
where compute hides behind memory a small prompt costs no time at all. ``p`` is not assumed: the form is used
that predicts the steps best, with all other terms fitted for each candidate.

The fit is a sequence of linear least squares: the combination is homogeneous of degree one, so by Euler's
theorem it equals its gradient times the terms, and with the gradient held fixed the model is linear.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.numerics.nonnegative import nonnegative
from proxy.core.numerics.order_statistics import median

Floats = NDArray[np.float64]

FORMS: Final[tuple[float, ...]] = (1.0, 1.5, 2.5, 5.0, math.inf)
_ITERATIONS: Final = 24
_DAMPING: Final = 0.5  # of each iteration: the regimes of the steps change with the terms
_RIDGE: Final = 1e-7  # towards the terms of the iteration before, where steps do not determine them
_ALIKE: Final = 1e-3  # weight of the guess that a decoded token computes as much as a prompt token
_SHORT: Final = 0.3  # of the median step: shorter ones are weighted as if they were as long
_OUTLIER: Final = 4.0  # median residuals of steps with prompts; a step beyond is a stall or a silence
_NOISE: Final = 0.01  # relative; residuals below are not called outliers, however small the others are
_SETTLED: Final = 10  # iterations before outliers are left out: what is one depends on the terms
_WARM: Final = 12  # of the iterations are spared where there is a fit to begin with
_CONVERGED: Final = 1e-4  # change of the terms, relative to the largest, at which iterating ends
_SIMPLER: Final = 0.97  # another form must lower the loss at least by this factor
_EXACT: Final = 1e-7  # loss (0.03 % of each length): stamps are no better, so other forms are not tried
_TERMS: Final = 5
_VISIBLE: Final = 3.0  # residuals by which a step is longer than decoding alone where its prompt shows
_LEAST_RESIDUAL: Final = 0.002


@dataclass(frozen=True, slots=True)
class StepTime:
    """The time of a step, in seconds, by what happens in it.

    Attributes:
        overhead: seconds of any step beside memory and compute.
        weights: seconds to read the weights.
        context: seconds to read one token of KV cache.
        decode: seconds to compute one stream's next token.
        prefill: seconds to compute one prompt token.
        p: the exponent of the combination, from 1 (sum) to infinity (maximum).
        residual: median relative difference to the steps that it was fitted to; 1 before there is a fit.
    """

    overhead: float
    weights: float
    context: float
    decode: float
    prefill: float
    p: float = 1.0
    residual: float = 1.0

    def memory(self, context: Floats) -> Floats:
        """Return the seconds of memory traffic of steps."""
        return self.weights + self.context * context

    def compute(self, streams: Floats, prompt: Floats) -> Floats:
        """Return the seconds of computing of steps."""
        return self.decode * streams + self.prefill * prompt

    def seconds(self, streams: Floats, context: Floats, prompt: Floats) -> Floats:
        """Predict the length of steps, (B,) each."""
        return self.overhead + combine(self.p, self.memory(context), self.compute(streams, prompt))

    def room(self, seconds: Floats, streams: Floats, context: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return how many prompt tokens steps of this length computed, (B,), and where that shows, (B,).

        Where compute hides behind memory, or within the noise of the steps, the number is the most that can
        have been hidden.
        """
        if self.prefill <= 0.0:
            return np.zeros(len(seconds)), np.zeros(len(seconds), bool)
        busy, memory = np.maximum(seconds - self.overhead, 0.0), self.memory(context)
        decoding = self.decode * streams
        alone = combine(self.p, memory, decoding)
        noise = _VISIBLE * max(self.residual, _LEAST_RESIDUAL) * alone
        seen = busy > alone + noise
        hidden = np.maximum(alone + noise, memory) if math.isinf(self.p) else alone + noise
        longest = np.where(seen, busy, hidden)
        if self.p == 1.0:
            compute = longest - memory
        elif math.isinf(self.p):
            compute = longest
        else:
            compute = np.maximum(longest**self.p - memory**self.p, 0.0) ** (1.0 / self.p)
        return np.asarray(np.maximum(compute - decoding, 0.0) / self.prefill), seen


def combine(p: float, memory: Floats, compute: Floats) -> Floats:
    """Return the p-norm of memory and compute time."""
    if p == 1.0:
        return memory + compute
    if math.isinf(p):
        return np.maximum(memory, compute)
    return np.asarray((memory**p + compute**p) ** (1.0 / p))


def slopes(p: float, memory: Floats, compute: Floats, both: Floats) -> tuple[Floats, Floats]:
    """Return the derivatives of ``both``, the combination, by memory and by compute time."""
    if p == 1.0:
        ones = np.ones_like(both)
        return ones, ones
    if math.isinf(p):
        bound = (memory >= compute).astype(float)
        return bound, 1.0 - bound
    scale = np.maximum(both, 1e-15)
    return (memory / scale) ** (p - 1.0), (compute / scale) ** (p - 1.0)


def fit(rows: Floats, seconds: Floats, guess: StepTime | None = None) -> StepTime:
    """Fit the time of steps and choose its form.

    Args:
        rows: decoding streams, tokens of context and prompt tokens of each step, (B, 3).
        seconds: their lengths, (B,).
        guess: terms to begin with and to keep where the steps do not determine them.

    Returns:
        The form with the least loss; the sum, or else the guess's form, unless another is clearly better.
    """
    least = _SHORT * median(seconds)
    weight = 1.0 / np.maximum(seconds, least)
    first = guess or _linear(rows, seconds, weight)
    begin = 0 if guess is None else _WARM
    best = guess.p if guess is not None and guess.p in FORMS else FORMS[0]
    tried = {best: _fit_form(best, rows, seconds, weight, first, begin)}
    if tried[best][1] > _EXACT:
        others = [p for p in FORMS if p != best]
        tried.update((p, _fit_form(p, rows, seconds, weight, first, begin)) for p in others)
    for p, (_, loss) in sorted(tried.items()):
        if loss < _SIMPLER * tried[best][1]:
            best = p
    return tried[best][0]


def _linear(rows: Floats, seconds: Floats, weight: Floats) -> StepTime:
    """Fit the terms of the sum, by which the other forms begin."""
    design = np.stack([np.ones(len(rows)), rows[:, 1], rows[:, 0], rows[:, 2]]) * weight
    base, context, decode, prefill = _solve(design, seconds * weight, np.zeros(4)).tolist()
    return StepTime(0.2 * base, 0.8 * base, context, decode, prefill)


def _fit_form(
    p: float, rows: Floats, seconds: Floats, weight: Floats, first: StepTime, begin: int
) -> tuple[StepTime, float]:
    """Fit the terms of one form; return them and their loss, the mean squared relative residual, clipped."""
    streams, context, prompt = np.ascontiguousarray(rows.T)
    design = np.empty((_TERMS, len(rows)))
    time = replace(first, p=p)
    terms = np.array([time.overhead, time.weights, time.context, time.decode, time.prefill])
    solved: Floats | None = None
    busy = prompt > 0.0 if (prompt > 0.0).any() else np.ones(len(rows), bool)
    best, least = time, math.inf
    for turn in range(begin, _ITERATIONS):
        memory, compute = time.memory(context), time.compute(streams, prompt)
        both = combine(p, memory, compute)
        by_memory, by_compute = slopes(p, memory, compute, both)
        residual = np.abs(seconds - time.overhead - both) * weight
        bound = _OUTLIER * max(median(residual[busy]), _NOISE)
        clipped = np.minimum(residual, bound)
        loss = float(clipped @ clipped) / len(rows)
        if loss < least:
            best, least = replace(time, residual=max(median(residual), 1e-6)), loss
        keep = weight if turn < _SETTLED else weight * (residual <= bound)
        design[0] = keep
        np.multiply(keep, by_memory, out=design[1])
        np.multiply(design[1], context, out=design[2])
        kept_compute = keep * by_compute
        np.multiply(kept_compute, streams, out=design[3])
        np.multiply(kept_compute, prompt, out=design[4])
        before, solved = terms, _solve(design, seconds * keep, terms, solved)
        terms = (1.0 - _DAMPING) * before + _DAMPING * solved
        if turn > _SETTLED and np.abs(terms - before).max() <= _CONVERGED * np.abs(terms).max():
            break
        overhead, weights, per_context, per_stream, per_token = terms.tolist()
        time = StepTime(overhead, weights, per_context, per_stream, per_token, p)
    return best, least


def _solve(design: Floats, target: Floats, before: Floats, solved: Floats | None = None) -> Floats:
    """Solve for terms >= 0 with a weak pull towards the terms before, and of decode towards prefill.

    ``design`` (terms, B); the search for the terms that are zero begins with those of ``solved``.
    """
    gram, moment = design @ design.T, design @ target
    unit = np.sqrt(np.maximum(gram.diagonal(), 1e-30))
    gram /= unit[:, None] * unit
    gram.flat[:: len(unit) + 1] += _RIDGE
    moment = moment / unit + _RIDGE * before * unit
    if len(unit) == _TERMS:
        # _ALIKE times the outer product of (0, 0, 0, 1 / unit[3], -1 / unit[4]), scaled by the smaller unit.
        decode, prefill = float(unit[3]), float(unit[4])
        least = min(decode, prefill)
        gram[3, 3] += _ALIKE * (least / decode) ** 2
        gram[4, 4] += _ALIKE * (least / prefill) ** 2
        gram[3, 4] -= _ALIKE * least / decode * least / prefill
        gram[4, 3] = gram[3, 4]
    return nonnegative(gram, moment, solved) / unit


class StepTimes:
    """The time of one engine's steps, learned from those that were seen: the last of two kinds are kept.

    Steps that compute prompts are rarer and determine the form; they are kept apart so that decoding does not
    push them out.
    """

    __slots__ = (
        "_fitted", "_new_plain", "_new_prompts", "_placed_seconds", "_plain", "_prompts", "_residuals",
        "partly_cached", "seconds", "steps", "time",
    )  # fmt: skip

    _KEEP: Final = 1500
    _LEAST: Final = 48  # steps before the first fit
    _GROWTH: Final = 0.35  # of the steps kept: after so many more, whether to fit anew is looked at
    _WORSE: Final = 1.25  # times the residual when fitted: the fit no longer predicts the steps
    MATURE_SECONDS: Final = 6.0
    _MATURE_PROMPTS: Final = 12

    def __init__(self) -> None:
        self._plain = np.empty((0, 4))
        self._prompts = np.empty((0, 4))
        self._new_plain = self._new_prompts = 0  # of these, not fitted yet
        self._fitted = 0  # steps when they were fitted
        self._residuals = (0.0, 0.0)  # median relative ones of both kinds then
        self.steps = 0  # learned from
        self.partly_cached = False  # whether prompts are, though nothing reports it
        self.seconds = 0.0  # of all of these
        self.time: StepTime | None = None
        self._placed_seconds = 0.0  # of the steps when prompts were placed without a mature fit

    @property
    def ready(self) -> bool:
        """Return whether prompts can be placed by the fit.

        A young fit is made anew each time the steps have doubled: placing and fitting in turn takes half a
        second.
        """
        return self.time is not None and (self.mature or self.seconds < 2.0 * self._placed_seconds)

    def placed(self) -> None:
        """Note that prompts were placed and the steps fitted in turn."""
        self._placed_seconds = self.seconds

    @property
    def mature(self) -> bool:
        """Return whether enough steps were seen for the terms to mean something."""
        return self.seconds >= self.MATURE_SECONDS and len(self._prompts) >= self._MATURE_PROMPTS

    def copy(self) -> "StepTimes":
        """Return another one with the same past."""
        other = StepTimes()
        other.replace_by(self)
        return other

    def replace_by(self, other: "StepTimes") -> None:
        """Replace what was learned by what another has learned."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def learn(self, rows: Floats, seconds: Floats, *, fit: bool = True) -> None:
        """Learn from steps: streams, context and prompt tokens (B, 3), and lengths in seconds (B,).

        Fits them when enough are new, unless ``fit`` is false: then call ``fit()`` afterwards. A fit is made
        anew when steps have doubled, or as soon as it predicts new steps worse than those it was made of: it
        costs as much as dividing hundreds of steps, and learns nothing where it predicts as well as before.
        """
        if not len(seconds):
            return
        steps = np.concatenate([rows, seconds[:, None]], axis=1)
        with_prompt = rows[:, 2] > 0.0
        self._plain = np.concatenate([self._plain, steps[~with_prompt]])[-self._KEEP :]
        self._prompts = np.concatenate([self._prompts, steps[with_prompt]])[-self._KEEP :]
        self.seconds += float(seconds.sum())
        self.steps += len(seconds)
        prompts = int(with_prompt.sum())
        self._new_prompts += prompts
        self._new_plain += len(seconds) - prompts
        if fit and self._is_due():
            self.fit()

    def _is_due(self) -> bool:
        """Return whether to fit anew."""
        kept = len(self._plain) + len(self._prompts)
        if self.time is None or kept < self._LEAST:
            return kept >= self._LEAST
        if self.steps >= 2 * self._fitted:
            return True
        if self._new_plain + self._new_prompts < self._GROWTH * kept:
            return False
        plain, prompts = self._plain[-self._new_plain :], self._prompts[-self._new_prompts :]
        return any(
            new and _residual(self.time, steps) > self._WORSE * max(before, _LEAST_RESIDUAL)
            for new, steps, before in zip(
                (self._new_plain, self._new_prompts), (plain, prompts), self._residuals, strict=True
            )
        )

    def fit(self) -> None:
        """Fit the steps kept."""
        steps = np.concatenate([self._plain, self._prompts])
        if len(steps) >= _TERMS:
            self.time = fit(steps[:, :3], steps[:, 3], self.time)
            found = _residual(self.time, self._plain), _residual(self.time, self._prompts)
            if self._fitted and self.steps < 2 * self._fitted:
                # The steps have changed, and old ones are among those kept: fit on until it is as good again.
                found = min(found[0], self._residuals[0]), min(found[1], self._residuals[1])
            self._residuals = found
            self._fitted = self.steps
            self._new_plain = self._new_prompts = 0


def _residual(time: StepTime, steps: Floats) -> float:
    """Return the median relative residual of steps, (B, 4); 0 for none."""
    if not len(steps):
        return 0.0
    streams, context, prompt, seconds = steps.T
    return median(np.abs(time.seconds(streams, context, prompt) / seconds - 1.0))
