"""The grid of a sweep, its frontier and its best point. Pure."""

import math
from collections.abc import Sequence

from loadgen.records import Knee, Point
from proxy.inputs import InputError, parse_number

_SLACK = 1.005
# Beyond these nothing can be measured: no client sends as much, nor has as many ports to one server (65,535),
# and a schedule in nanoseconds overflows where a request comes once in centuries.
LEAST_RATE, MOST_RATE = 1e-6, 1e6
MOST_IN_FLIGHT = 1e5


def parse_levels(text: str, option: str, *, whole: bool) -> tuple[float, ...]:
    """Levels of ``8``, ``1,2,4`` or ``1..64`` (powers of two times the first, and the last).

    ``whole`` wants whole numbers >= 1. Raises ``ValueError`` that says what would be right.
    """
    try:
        low, dots, high = text.partition("..")
        ends = [parse_number(part) for part in ((low, high) if dots else text.split(","))]
    except InputError:
        raise _wrong(text, option) from None
    if any(end <= 0 or (whole and not end.is_integer()) for end in ends):
        raise _wrong(text, option)
    least, most = (1.0, MOST_IN_FLIGHT) if whole else (LEAST_RATE, MOST_RATE)
    if not least <= min(ends) <= max(ends) <= most:
        raise ValueError(f"{option} {text!r}: must be from {_plain(least)} to {_plain(most)}")
    if not dots:
        return tuple(dict.fromkeys(ends))
    if ends[1] < ends[0]:
        raise ValueError(f"{option} {text!r}: the range runs backwards; write {high}..{low}")
    return _doubling(ends[0], ends[1])


def _wrong(text: str, option: str) -> ValueError:
    kind = "whole numbers above zero" if option == "--concurrency" else "numbers above zero"
    return ValueError(f"{option} {text!r}: write {kind}, as 8, a list 1,2,4 or a range 1..64")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:f}"


def _doubling(low: float, high: float) -> tuple[float, ...]:
    found = [low]
    while found[-1] * 2 < high:
        found.append(found[-1] * 2)
    return tuple(found) if low == high else (*found, high)


def qualifies(point: Point) -> bool:
    """Whether a point may be called an operating point."""
    done = point.requests > point.failed
    return done and point.slo_met is not False and point.stable and not point.generator_bound


def level_of(point: Point) -> float:
    """Its requests in flight (closed loop) or requests/s (open loop)."""
    return float(point.concurrency if point.concurrency is not None else point.rate or 0.0)


def merit(point: Point) -> tuple[float, float]:
    """Tokens (or images) per joule where known; then goodput, then throughput."""
    per_joule = point.tokens_per_joule or point.images_per_joule or 0.0
    return per_joule, point.goodput_per_second or point.requests_per_second


def best_index(points: Sequence[Point], knee: Knee | None = None) -> int | None:
    """The most efficient point within the SLO; None if no point is.

    Above the knee of a search no point counts, however lucky its few seconds were.
    """
    top = math.inf if knee is None else knee.level or knee.low or 0.0
    good = [i for i, point in enumerate(points) if qualifies(point) and level_of(point) <= top * _SLACK]
    return max(good, key=lambda index: merit(points[index]), default=None)


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points no other beats in both coordinates, by the first one ascending."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    best = float("-inf")
    found = []
    for index in order:
        if points[index][1] > best:
            best = points[index][1]
            found.append(index)
    return found[::-1]
