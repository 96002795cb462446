"""Operating points of a sweep: which points qualify, the best one and the Pareto frontier. Pure."""

import math
from collections.abc import Sequence

from loadgen.results.records import Knee, Point

_SLACK = 1.005  # levels of a search are rounded to four digits


def qualifies(point: Point) -> bool:
    """Return whether a point is a valid operating point: SLO not missed, stable, not generator-bound."""
    done = point.requests > point.failed
    return done and point.slo_met is not False and point.stable and not point.generator_bound


def level_of(point: Point) -> float:
    """Return the load of a point: requests in flight (closed loop) or requests/s (open loop)."""
    return float(point.concurrency if point.concurrency is not None else point.rate or 0.0)


def merit(point: Point) -> tuple[float, float]:
    """Return the sort key of points: tokens (or images) per joule if known, then goodput or throughput."""
    per_joule = point.tokens_per_joule or point.images_per_joule or 0.0
    return per_joule, point.goodput_per_second or point.requests_per_second


def best_index(points: Sequence[Point], knee: Knee | None = None) -> int | None:
    """Return the index of the most efficient point within the SLO; None if there is none.

    Points above the knee of a search are excluded, even if their few seconds met the SLO.
    """
    top = math.inf if knee is None else knee.level or knee.low or 0.0
    good = [i for i, point in enumerate(points) if qualifies(point) and level_of(point) <= top * _SLACK]
    return max(good, key=lambda index: merit(points[index]), default=None)


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto frontier: points that no other exceeds in both coordinates.

    In ascending order of the first coordinate.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    best = float("-inf")
    found = []
    for index in order:
        if points[index][1] > best:
            best = points[index][1]
            found.append(index)
    return found[::-1]
