"""Median, quantile and distinct values of arrays, for the hot paths of the core.

``numpy.median`` and ``numpy.quantile`` take 30 to 50 us whatever the length, and the first call of these or
of ``numpy.unique`` imports ``numpy.ma`` (50 ms) in the midst of measuring.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def median(values: Floats) -> float:
    """Return the median of values, (N >= 1,), without NaN."""
    at = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, at)[at])
    low, high = np.partition(values, (at - 1, at))[at - 1 : at + 1].tolist()
    return float(0.5 * (low + high))


def quantile(values: Floats, share: float) -> float:
    """Return the least of the values, (N >= 1,), that at least ``share`` of them do not exceed."""
    at = min(max(int(np.ceil(share * len(values))) - 1, 0), len(values) - 1)
    return float(np.partition(values, at)[at])


def distinct(values: Floats) -> Floats:
    """Return the distinct values, (N >= 1,), in order."""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
    return ordered[keep]
