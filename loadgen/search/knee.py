"""Where the knee is: the load at which a share of requests leaves an SLO, from all probes together. Pure.

The share outside an objective against the logarithm of the load is taken for logistic near the knee; its
posterior is computed on a grid. One long busy period is one observation, not hundreds of requests: every
count is divided by its inefficiency. Where the knee was not bracketed there is no estimate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadgen.config.slo import Objective, meets
from loadgen.measure.metrics import inefficiency, latencies, ttft
from loadgen.results.records import Record
from proxy.units import NS_PER_SECOND

Floats = npt.NDArray[np.float64]

_SLOPE_MEDIAN, _SLOPE_SIGMA = 30.0, 0.7
"""Prior of the slope per unit of log load: from 7 (token times that creep up) to 120 (a cliff)."""
_CAUTION = 0.45
"""Quantile of the posterior that is called the knee: rather a little below than a little above."""
_GRID, _SLOPES = 400, 41
_LATER, _LOST = 24, 0.9
_ENOUGH = 100


@dataclass(frozen=True, slots=True)
class Tally:
    """What a probe saw: per objective and request, in order of schedule, whether it was outside (1.0).

    ``expected`` arrivals were asked for in an open loop and ``arrived`` came; None in a closed loop.
    """

    level: float
    outside: tuple[Floats, ...]
    service_s: float | None
    arrived: int
    expected: float | None = None

    @property
    def count(self) -> int:
        """Requests of which something can be said."""
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
        pairs = zip(self.outside, slo, strict=True)
        return any(len(out) > 0 and out.mean() > 1 - o.percentile / 100 + 1e-12 for out, o in pairs)


def tally(
    level: float, warm_s: float, records: Sequence[Record], slo: Sequence[Objective], elapsed_s: float
) -> Tally:
    """The requests scheduled after ``warm_s``, those that failed being outside every limit.

    Records without an error and without an end are still under way at ``elapsed_s``: one that already
    waited longer than a limit is outside it, one of which nothing can be said does not count.
    """
    warm_ns = warm_s * NS_PER_SECOND
    chosen = sorted((r for r in records if r.scheduled_ns >= warm_ns), key=lambda r: r.scheduled_ns)
    outside = tuple(
        np.array([side for r in chosen if (side := _is_outside(r, one, elapsed_s)) is not None], np.float64)
        for one in slo
    )
    lasted = [(r.end_ns - r.scheduled_ns) / NS_PER_SECOND for r in records if r.ok and r.end_ns is not None]
    return Tally(level, outside, float(np.median(lasted)) if lasted else None, len(chosen))


def _is_outside(record: Record, objective: Objective, elapsed_s: float) -> bool | None:
    if record.end_ns is not None or not record.ok:
        return not (record.ok and meets(latencies(record), [objective]))
    if objective.metric == "ttft" and record.first_ns is not None:
        return (ttft(record) or 0.0) > objective.limit_seconds
    waited = elapsed_s - record.scheduled_ns / NS_PER_SECOND
    late = objective.metric in {"ttft", "e2e"} and waited > objective.limit_seconds
    return True if late else None


def hopeless(outside: Floats) -> bool:
    """Whether the later half of a probe is lost: a queue that only grows; more of the same adds nothing."""
    later = outside[len(outside) // 2 :]
    return len(later) >= _LATER and bool(later.mean() > _LOST)


def knee_interval(
    tallies: Sequence[Tally], slo: Sequence[Objective], service_s: float
) -> tuple[float, float, float]:
    """2.5 %, 45 % and 97.5 % of the knee's posterior, of the objective that gives way first."""
    each = (posterior(tallies, i, 1 - o.percentile / 100, service_s) for i, o in enumerate(slo))
    return min(each, key=lambda triple: triple[1])


def posterior(
    tallies: Sequence[Tally], index: int, allowed: float, service_s: float
) -> tuple[float, float, float]:
    """The same for objective ``index``, of which a share of ``allowed`` may be outside."""
    used = [t for t in tallies if len(t.outside[index])]
    x = np.log([t.level for t in used]) + math.log(_offered(used))
    count = np.array([len(t.outside[index]) for t in used], np.float64)
    share = np.array([float(t.outside[index].mean()) for t in used])
    weight = count / _inefficiencies(used, index, service_s)
    knees = np.linspace(x.min() - 0.3, x.max() + 0.3, _GRID)
    steps = np.linspace(-2.5, 2.5, _SLOPES)
    slopes = _SLOPE_MEDIAN * np.exp(steps * _SLOPE_SIGMA)
    start = math.log(allowed / (1 - allowed))
    z = start + slopes[None, :, None] * (x[None, None, :] - knees[:, None, None])
    log = (weight * (share * z - np.logaddexp(0, z))).sum(axis=2) - steps[None, :] ** 2 / 2
    mass = np.exp(log - log.max()).sum(axis=1)
    low, middle, high = np.exp(np.interp([0.025, _CAUTION, 0.975], np.cumsum(mass) / mass.sum(), knees))
    return float(low), float(middle), float(high)


def _offered(tallies: Sequence[Tally]) -> float:
    """Requests that came over those asked for; 1 in a closed loop.

    A minute of Poisson arrivals is off by some percent, which is a good part of what makes the knee
    uncertain. Taken over all probes together: short bursts are what the latencies are made of.
    """
    pairs = [(t.arrived, t.expected) for t in tallies if t.expected is not None]
    expected = sum(wanted for _, wanted in pairs)
    return sum(came for came, _ in pairs) / expected if expected > _ENOUGH else 1.0


def _inefficiencies(tallies: Sequence[Tally], index: int, service_s: float) -> Floats:
    """How many requests of each probe make one observation.

    Its batch means say so; a short probe's say too little, so at least what those probes say that saw
    both sides, and at least the number in flight: all that are in the engine together share its state.
    """
    own = np.array([inefficiency(t.outside[index]) for t in tallies])
    mixed = [value for value, t in zip(own, tallies, strict=True) if 0 < t.outside[index].mean() < _LOST]
    level = np.array([t.level if t.expected is None else t.level * service_s for t in tallies])
    least = float(np.median(mixed)) if mixed else 1.0
    return np.array([max(a, b, least) for a, b in zip(own, level, strict=True)])
