"""Operating points of a sweep: which points qualify, the best one and the Pareto frontier. Pure."""

from collections.abc import Sequence

from loadgen.results.records import Knee, Point


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

    Of a search, only points that confirmed a load count, and only if their own verdict is certain at 95 %: a
    probe of a second or two, or one that was lucky near the knee, is not an operating point.
    """
    good = [i for i, point in enumerate(points) if qualifies(point)]
    if knee is not None:
        good = [i for i in good if i in knee.confirmed and points[i].slo_confidence == "pass"]
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
