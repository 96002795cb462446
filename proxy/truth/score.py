"""The score of a set of estimates against the truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.truth.files import Estimate


@dataclass(frozen=True, slots=True)
class Score:
    """Errors are relative to the true joules of a request.

    Attributes:
        errors: of each request, sorted; a request without an estimate counts as 100 %.
        sum_error: (sum of the estimates - sum of the truth) / sum of the truth; signed.
        inside: share of the requests whose truth is between ``low`` and ``high``; None without intervals.
        width: median of (high - low) / estimate; None without intervals.
        missing: requests without an estimate.
    """

    errors: NDArray[np.float64]
    sum_error: float
    inside: float | None
    width: float | None
    missing: int

    @property
    def median(self) -> float:
        """Median of the errors."""
        return float(np.median(self.errors))

    @property
    def p95(self) -> float:
        """95th percentile of the errors."""
        return float(np.quantile(self.errors, 0.95))


def score(truth: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Score:
    """Compare estimates with the joules that are true, by request.

    Coverage and width are those of the requests with an interval; an interval that is open above holds all
    that is higher, and has no width.
    """
    true = np.array(list(truth.values()))
    given = [estimates.get(name, Estimate(None)) for name in truth]
    joules = np.array([e.joules if e.joules is not None else 0.0 for e in given])
    bounded = [(e, t) for e, t in zip(given, true.tolist(), strict=True) if e.low is not None]
    closed = [e for e, _ in bounded if e.high is not None and e.joules]
    inside = [e.low <= t and (e.high is None or t <= e.high) for e, t in bounded if e.low is not None]
    widths = [
        (e.high - e.low) / e.joules for e in closed if e.high is not None and e.low is not None and e.joules
    ]
    return Score(
        errors=np.sort(np.abs(joules - true) / true),
        sum_error=float(joules.sum() / true.sum() - 1.0),
        inside=float(np.mean(inside)) if inside else None,
        width=float(np.median(widths)) if widths else None,
        missing=sum(e.joules is None for e in given),
    )
