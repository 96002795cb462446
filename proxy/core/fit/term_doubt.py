"""The doubt of the fitted terms, carried over to the joules of each request.

The terms set proportions, the meter sets the sum. If a term is wrong by d, a request with features f in a
block of features F and joules J, of which it got the part q, is wrong by ``(f - q F) d``: terms that
cannot be separated do not matter to a request in which they come together as they do in all the others,
and matter in full to one that differs from them. The variance follows from the covariance of the terms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.work import WIDTH, Floats, Work
from proxy.core.fit.model import EnergyModel


def term_doubts(
    model: EnergyModel, works: Sequence[Work], slots: Sequence[int], scales: Sequence[Floats], idle: float
) -> list[Floats]:
    """Return the standard deviation of each request's joules by the doubt of the terms, (R,) for each work.

    Args:
        model: the fit of the device.
        works: what the groups on it did in the block.
        slots: their slots in the fit.
        scales: measured over modelled energy of the cells of each work, (C,).
        idle: seconds of the block without any work, scaled likewise.
    """
    covariance, terms = model.covariance(), model.theta
    covariance = np.where(np.isfinite(covariance), covariance, 0.0)
    features = [work.amounts(scale) for work, scale in zip(works, scales, strict=True)]
    total = np.zeros(len(terms))
    total[-1] = idle
    for slot, own in zip(slots, features, strict=True):
        total[slot * WIDTH : (slot + 1) * WIDTH] += own.sum(axis=0)
    joules = float(total @ terms)
    spread, with_total = covariance @ total, float(total @ covariance @ total)
    found = []
    for slot, own in zip(slots, features, strict=True):
        place = slice(slot * WIDTH, (slot + 1) * WIDTH)
        part = own @ terms[place] / joules if joules > 0.0 else np.zeros(len(own))
        variance = _quadratic(own, covariance[place, place])
        variance += part**2 * with_total - 2.0 * part * (own @ spread[place])
        found.append(np.sqrt(np.maximum(variance, 0.0)))
    return found


def _quadratic(rows: Floats, matrix: NDArray[np.float64]) -> Floats:
    """Return x'Mx of each row x, (R,)."""
    return np.asarray(((rows @ matrix) * rows).sum(axis=1), dtype=float)
