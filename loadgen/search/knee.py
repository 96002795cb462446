"""Estimate the knee: the load at which a share of requests leaves an SLO, from all probes together. Pure.

How the estimate is made
------------------------
1. **Model.** For each objective, the share of requests outside it is taken to be logistic in the logarithm of
   the load. Two parameters, the knee and the slope, have a posterior on a grid (a Bayesian logistic
   regression, as for median lethal doses in bioassay). A probe that is far from the knee counts less, because
   the curve is logistic only near it. Nothing is chosen by its result: a load is not better because its few
   seconds were lucky, which would bias the estimate upwards (the winner's curse).

   The prior of the slope comes from the theory of queues: in heavy traffic a wait exceeds w with probability
   C exp(-theta w), theta = 2 (capacity - load) / (1 + cv^2) (Kingman 1962): the log odds rise by about
   2 load w / (1 + cv^2) per unit of log load. A knee of 60 req/s with 200 ms is a cliff, one of 5 req/s is
   not. One prior for all would be far too flat for the first: a lost probe 20 % above the knee would then
   move the estimate far down. The capacity of the server bounds the knee (``capacity``). In a closed loop
   there is neither, since a queue cannot grow: the prior of the slope is the same for all.
2. **Realised arrivals.** The load of an open-loop probe is the rate at which requests came, not the nominal
   rate. A minute of Poisson arrivals at 30 req/s is off by 2 %, and this is a good part of the error.
   The regression on realised arrivals is the control variate of simulation (Law, Simulation Modeling and
   Analysis, chapter 11). Shares react to the arrivals of a longer time only, not to those of a second, so
   short probes share one correction.
3. **Overdispersion.** Requests that wait in one busy period are late together: they are one observation, not
   hundreds. The variance of sums over blocks of consecutive requests (batch means) around the fitted curve,
   over the variance of independent requests, is the number of requests that make one observation. All probes
   near the knee are one series for this, since the load passes from one to the next without a pause. Several
   lengths of block are tried and the largest ratio is used, because blocks shorter than a busy period
   understate it. A few blocks do not determine a variance, so that it is shrunk to a prior: some times the
   requests that arrive during a wait as long as the limit or, for the time per token, during a service.
4. **Interval.** The likelihood has the tails of Student's t, for the variance is estimated from a few blocks.
   The interval is the central 95 % of the knee's posterior. Firth's penalty (Firth 1993, Biometrika 80)
   removes the first order of the bias that few misses cause.

Where the knee was not bracketed there is no estimate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadgen.config.slo import Objective, meets
from loadgen.measure.metrics import inefficiency, latencies, ttft, wilson
from loadgen.results.records import Record
from loadgen.search.capacity import Capacity
from proxy.units import NS_PER_SECOND

Floats = npt.NDArray[np.float64]
_WAITS = frozenset({"ttft", "e2e"})  # metrics that contain the time in the queue

# Prior of the slope of the log odds per unit of log load: log-normal. In an open loop, its median is
# a + b load w where requests wait, and a + c sqrt(load s) for the time per token, which depends on a Poisson
# number of requests in a batch of service time s; a, b, c roughly fit the servers of
# tests/fakes/known_knees.py, whose slopes are 4 to 40. In a closed loop it is the same for all.
_SLOPE_LEAST, _SLOPE_WAIT, _SLOPE_BATCH, _SLOPE_SIGMA = 4.0, 1.2, 3.4, 0.65
_CLOSED_SLOPE, _CLOSED_SIGMA = 15.0, 0.9
_GRID, _SLOPES = 200, 15
# Far below the knee (at this distance in log load) a request is outside for other reasons than the load. The
# share of such requests is taken to be at least this part of the allowed share (a lapse rate): or else one
# slow request at 1 req/s would rule out a knee of 20.
_UNRELATED, _LAPSE = 1.0, 0.1
# Distance in log load at which a probe counts half, and the least that one counts: far from the knee the
# curve is not logistic, but that all or no request is outside still bounds the knee.
_NEAR, _FAR = 0.35, 0.2
_BLOCK_COUNTS = (8, 16, 32)
# Blocks that the prior of the inefficiency is worth, and its mean in requests that arrive during a wait as
# long as the limit, or during a service: an excursion above the limit lasts for several of them. In a closed
# loop it is one.
_PRIOR_BLOCKS, _PER_WAIT, _PER_SERVICE = 4.0, 5.0, 3.0
# Least fitted share, so that one request that is outside far below the knee does not decide the variance.
_LEAST_SHARE = 0.002
_LATER, _LOST = 24, 0.9
# Share of requests of a short probe that have a first token unless there is a queue; standard deviations of
# the number in flight (a Poisson number, if nothing waits) that are no queue, and a number that is none.
_ANSWERED, _DEVIATIONS, _FEW = 0.8, 3.0, 3
_ENOUGH = 100
# Quantile of the posterior that is reported as the knee. The posterior is skewed to the right, for a load
# without misses does not show how far up the knee is; an overestimate costs users more than an underestimate.
_CAUTION = 0.45


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcome of a probe: per objective and request, in order of schedule, whether it was outside (1.0).

    ``expected`` arrivals were scheduled on average in an open loop and ``arrived`` came; None in a closed
    loop. ``short`` is a probe that only looks for an upper end. ``steady`` is false where latencies grew all
    the time.
    """

    level: float
    outside: tuple[Floats, ...]
    service_s: float | None
    arrived: int
    expected: float | None = None
    short: bool = False
    steady: bool = True

    @property
    def count(self) -> int:
        """Requests whose side is known."""
        return len(self.outside[0]) if self.outside else 0

    @property
    def most_outside(self) -> float:
        """Requests outside the objective that most are outside of."""
        return max((float(outside.sum()) for outside in self.outside), default=0.0)

    @property
    def text(self) -> str:
        """The share within, for people."""
        if not self.count:
            return "no answer yet"
        inside = 1 - max(float(outside.mean()) for outside in self.outside if len(outside))
        return f"{inside:.1%} of {self.count} within"

    def misses(self, slo: Sequence[Objective]) -> bool:
        """Whether any objective's share is missed, by the shares as they are."""
        return any(self.misses_one(index, objective) for index, objective in enumerate(slo))

    def misses_one(self, index: int, objective: Objective) -> bool:
        """Whether the share of one objective is missed."""
        outside = self.outside[index] if self.outside else ()
        return len(outside) > 0 and float(np.mean(outside)) > 1 - objective.percentile / 100 + 1e-12

    def certain(self, slo: Sequence[Objective]) -> bool:
        """Whether every objective is met with 95 % confidence: the rule of ``metrics.judge``."""
        pairs = list(zip(self.outside, slo, strict=True))
        return all(
            len(out) > 0
            and wilson(1 - float(out.mean()), len(out) / inefficiency(1 - out))[0] >= o.percentile / 100
            for out, o in pairs
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """The median of the knee's posterior, its central 95 %, and the slope of the log odds per log load."""

    low: float
    middle: float
    high: float
    slope: float

    def low_end(self, tallies: Sequence[Tally], slo: Sequence[Objective]) -> float:
        """Return the lower end of the interval that is reported.

        A limit on E2E is exceeded by long responses, too, which the model takes for those of a queue: the
        interval then reaches down at least to the highest load that kept the SLO in a probe of seconds.
        """
        held = [t.level for t in tallies if not t.short and t.count and not t.misses(slo)]
        if not held or all(one.metric != "e2e" for one in slo):
            return self.low
        return min(self.low, max(held))


def tally(
    level: float,
    warm_s: float,
    records: Sequence[Record],
    slo: Sequence[Objective],
    elapsed_s: float,
    *,
    short: bool = False,
) -> Tally:
    """Return the outcome of requests scheduled after ``warm_s``; those that failed are outside every limit.

    Records without an error and without an end are still under way at ``elapsed_s``: one that already
    waited longer than a limit is outside it, one whose side is not known yet does not count. Requests of the
    last seconds, as many as the limit, would then count only if they were fast: they are left out, except
    in a ``short`` probe, which looks for a queue and has none to spare.
    """
    warm_ns = warm_s * NS_PER_SECOND
    chosen = sorted((r for r in records if r.scheduled_ns >= warm_ns), key=lambda r: r.scheduled_ns)
    outside = tuple(
        np.array(
            [
                side
                for r in chosen
                if (short or r.scheduled_ns <= _known_until_ns(one, elapsed_s))
                and (side := _is_outside(r, one, elapsed_s)) is not None
            ],
            np.float64,
        )
        for one in slo
    )
    lasted = [(r.end_ns - r.scheduled_ns) / NS_PER_SECOND for r in records if r.ok and r.end_ns is not None]
    return Tally(level, outside, float(np.median(lasted)) if lasted else None, len(chosen))


def _known_until_ns(objective: Objective, elapsed_s: float) -> float:
    limit_s = objective.limit_seconds if objective.metric in _WAITS else 0.0
    return (elapsed_s - limit_s) * NS_PER_SECOND


def _is_outside(record: Record, objective: Objective, elapsed_s: float) -> bool | None:
    if record.end_ns is not None or not record.ok:
        return not (record.ok and meets(latencies(record), [objective]))
    if objective.metric == "ttft" and record.first_ns is not None:
        return (ttft(record) or 0.0) > objective.limit_seconds
    waited = elapsed_s - record.scheduled_ns / NS_PER_SECOND
    late = objective.metric in {"ttft", "e2e"} and waited > objective.limit_seconds
    return True if late else None


def unanswered(tally: Tally, slo: Sequence[Objective], in_service: float) -> list[int]:
    """Return per objective how many requests are without an answer beyond those that are usually in service.

    Most requests of a probe have a first token unless they wait in a queue. Of limits on E2E or TPOT,
    as many are unknown as are ``in_service``: by Little's law, load times mean service time.
    """
    begun, ended = (
        (1 - _ANSWERED) * tally.arrived,
        max(_FEW, in_service + _DEVIATIONS * math.sqrt(in_service)),
    )
    most = [begun if objective.metric == "ttft" else ended for objective in slo]
    known = [len(outside) for outside in tally.outside]
    return [max(0, int(tally.arrived - n - m)) for n, m in zip(known, most, strict=True)]


def with_queue(tally: Tally, slo: Sequence[Objective], in_service: float) -> Tally:
    """Return the outcome of a short probe with the requests of a growing queue as outside.

    A probe that is shorter than the limit has no late request yet, however fast its queue grows.
    """
    if tally.service_s is None:
        return tally
    pairs = zip(tally.outside, unanswered(tally, slo, in_service), strict=True)
    return replace(tally, outside=tuple(np.append(out, np.ones(late)) for out, late in pairs))


def hopeless(outside: Floats) -> bool:
    """Whether the later half of a probe is lost: a queue that only grows; more of the same adds nothing."""
    later = outside[len(outside) // 2 :]
    return len(later) >= _LATER and bool(later.mean() > _LOST)


def estimate_knee(
    tallies: Sequence[Tally], slo: Sequence[Objective], service_s: float, capacity: Capacity | None = None
) -> Estimate:
    """Return the estimate for the objective that gives way first.

    ``service_s`` is a request's usual time, seconds. At least one tally must miss an objective.
    """
    # An objective that no probe missed has no knee among the loads tried, and no upper end for one.
    missed = [i for i, o in enumerate(slo) if any(t.misses_one(i, o) for t in tallies)]
    each = (estimate(tallies, i, slo[i], service_s, capacity) for i in missed)
    return min(each, key=lambda found: found.middle)


def estimate(
    tallies: Sequence[Tally],
    index: int,
    objective: Objective,
    service_s: float,
    capacity: Capacity | None = None,
) -> Estimate:
    """Return the estimate for ``objective``, which is number ``index`` of each tally."""
    used = [t for t in tallies if len(t.outside[index])]
    x = np.log([t.level for t in used]) + _realised(used)
    count = np.array([len(t.outside[index]) for t in used], np.float64)
    share = np.array([float(t.outside[index].mean()) for t in used])
    # From a fifth of the lowest load that carries information; a short probe without a miss does not.
    telling = x[np.array([bool(t.outside[index].any()) or not t.short for t in used])]
    lowest = max(x.min() - 0.3, telling.min() - 1.6) if len(telling) else x.min() - 0.3
    knees = np.linspace(lowest, x.max() + 0.3, _GRID)
    closed = used[0].expected is None
    slopes = np.full(_GRID, _CLOSED_SLOPE) if closed else _usual_slope(np.exp(knees), objective, service_s)
    grid = _Grid(knees, slopes, _CLOSED_SIGMA if closed else _SLOPE_SIGMA, objective, capacity or Capacity())
    prior = _usual_inefficiency(used, objective, service_s)
    knee, slope = grid.best(x, share, count / prior)
    for _ in range(2):
        fitted = np.clip(grid.share(x, knee, slope), _LEAST_SHARE, 1.0)
        together = _inefficiency(used, index, fitted, prior)
        weight = count / together * np.maximum(_FAR, 1 / (1 + ((x - knee) / _NEAR) ** 2))
        knee, slope = grid.best(x, share, weight)
    return grid.summary(x, share, weight, _BLOCK_COUNTS[0] + _PRIOR_BLOCKS)


def _usual_slope(rates: Floats, objective: Objective, service_s: float) -> Floats:
    """Return the prior median of the slope for knees at ``rates``, requests/s; see the constants."""
    if objective.metric not in _WAITS:
        return _SLOPE_LEAST + _SLOPE_BATCH * np.sqrt(rates * service_s)
    wait_s = objective.limit_seconds - (service_s if objective.metric == "e2e" else 0.0)
    return _SLOPE_LEAST + _SLOPE_WAIT * rates * max(0.0, wait_s)


def _usual_inefficiency(tallies: Sequence[Tally], objective: Objective, service_s: float) -> Floats:
    """Return the prior mean of the number of requests that are outside together, for each probe.

    A queue that makes one request late is as long for those that arrive during a wait as long as the limit.
    Time per token is the same for all that are in one batch: those that arrive during a service.
    """
    waits = objective.metric in _WAITS
    wait_s = objective.limit_seconds if waits else service_s
    times = _PER_WAIT if waits else _PER_SERVICE
    # In a closed loop the level is the number of requests in flight: the rate follows by Little's law.
    closed = 1 / service_s if service_s > 0 else 0.0
    rates = [times * t.level if t.expected is not None else t.level * closed for t in tallies]
    return np.array([max(1.0, rate * wait_s) for rate in rates])


class _Grid:
    """The posterior over (slope, knee) on a grid."""

    def __init__(
        self, knees: Floats, slopes: Floats, sigma: float, objective: Objective, capacity: Capacity
    ) -> None:
        allowed = 1 - objective.percentile / 100
        self._knees = knees
        steps = np.linspace(-2.5, 2.5, _SLOPES)
        self._slopes = slopes[:, None] * np.exp(steps * sigma)[None, :]
        self._log_prior = capacity.log_prior(knees)[:, None] - steps[None, :] ** 2 / 2
        self._start = math.log(allowed / (1 - allowed))
        self._lapse = math.log(_LAPSE * allowed / (1 - _LAPSE * allowed))

    def share(self, x: Floats, knee: float, slope: float) -> Floats:
        """Return the curve at ``x``."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self._start + slope * (x - knee), -50, 50))), np.float64)

    def _log_likelihood(self, x: Floats, share: Floats, weight: Floats) -> Floats:
        z = self._start + self._slopes[:, :, None] * (x[None, None, :] - self._knees[:, None, None])
        far = x[None, None, :] < self._knees[:, None, None] - _UNRELATED
        z = np.where(far, np.maximum(z, self._lapse), z)
        total = np.logaddexp(0, z)
        log = (weight * (share * z - total)).sum(axis=2)
        # Firth's penalty, half the logarithm of the information on the knee. One is added to it, or else a
        # gap between two probes, of which nothing is known, would count as unlikely.
        information = (weight * np.exp(z - 2 * total)).sum(axis=2)
        return np.asarray(log + 0.5 * np.log1p(information), np.float64)

    def best(self, x: Floats, share: Floats, weight: Floats) -> tuple[float, float]:
        """Return the most probable knee (its logarithm) and slope."""
        log = self._log_likelihood(x, share, weight) + self._log_prior
        row, column = divmod(int(np.argmax(log)), _SLOPES)
        return float(self._knees[row]), float(self._slopes[row, column])

    def summary(self, x: Floats, share: Floats, weight: Floats, freedom: float) -> Estimate:
        """Return quantiles of the knee, with the tails of Student's t of ``freedom`` degrees."""
        log = self._log_likelihood(x, share, weight)
        tails = -(freedom + 1) / 2 * np.log1p(2 * (log.max() - log) / freedom)
        mass = np.exp(tails + self._log_prior)
        over_knees = mass.sum(axis=1)
        low, middle, high = np.exp(
            np.interp([0.025, _CAUTION, 0.975], np.cumsum(over_knees) / mass.sum(), self._knees)
        )
        slope = float(np.exp((mass * np.log(self._slopes)).sum() / mass.sum()))
        return Estimate(float(low), float(middle), float(high), slope)


def _realised(tallies: Sequence[Tally]) -> Floats:
    """Return the logarithm of realised over nominal arrivals per probe; 0 in a closed loop.

    One with too few requests for a ratio of its own has that of all long probes together.
    """
    pairs = [(t.arrived, t.expected) for t in tallies if t.expected is not None and not t.short]
    expected = sum(wanted for _, wanted in pairs)
    joint = math.log(max(1, sum(came for came, _ in pairs)) / expected) if expected > _ENOUGH else 0.0
    return np.array([_own_ratio(t, joint) for t in tallies])


def _own_ratio(one: Tally, joint: float) -> float:
    if one.expected is None or one.short:
        return 0.0
    return math.log(max(1, one.arrived) / one.expected) if one.expected > _ENOUGH else joint


def _inefficiency(tallies: Sequence[Tally], index: int, fitted: Floats, prior: Floats) -> Floats:
    """Return how many requests of each probe make one observation; see the head of this file."""
    near = [
        i
        for i, t in enumerate(tallies)
        if not t.short and fitted[i] < _LOST and not hopeless(t.outside[index])
    ]
    if not near:
        return prior
    residual = np.concatenate([tallies[i].outside[index] - fitted[i] for i in near])
    variance = np.concatenate(
        [np.full(len(tallies[i].outside[index]), fitted[i] * (1 - fitted[i])) for i in near]
    )
    ratio = float(np.mean(prior[near]))
    found = [
        _block_ratio(residual, variance, blocks) for blocks in _BLOCK_COUNTS if len(residual) >= 4 * blocks
    ]
    if not found:
        return prior
    blocks = _BLOCK_COUNTS[0]
    together = (blocks * max(found) + _PRIOR_BLOCKS * ratio) / (blocks + _PRIOR_BLOCKS)
    return np.maximum(1.0, prior * together / ratio)


def _block_ratio(residual: Floats, variance: Floats, blocks: int) -> float:
    size = len(residual) // blocks
    used = size * blocks
    sums = residual[:used].reshape(blocks, size).sum(axis=1)
    return float((sums**2).sum() / variance[:used].sum())
