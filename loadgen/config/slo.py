"""Service level objectives: their syntax, and whether a request meets them. Pure.

``[pNN:]metric=duration[,...]`` with metrics ttft, tpot, itl, e2e and durations in ms, s, m. A bare
duration means ttft for streamed text and e2e for everything else. The default percentile is p99.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from proxy.inputs import parse_duration

METRICS = ("ttft", "tpot", "itl", "e2e")
DEFAULT_PERCENTILE = 99.0
_SHAPE = "200ms, ttft=200ms,tpot=50ms or p95:ttft=200ms (metrics: ttft, tpot, itl, e2e)"


class Objective(msgspec.Struct, frozen=True):
    """``percentile`` % of all requests must have ``metric`` at or below ``limit_seconds``."""

    metric: str
    limit_seconds: float
    percentile: float = DEFAULT_PERCENTILE

    def __str__(self) -> str:
        return f"p{self.percentile:g}:{self.metric}={format_duration(self.limit_seconds)}"


def format_duration(seconds: float) -> str:
    """Return a duration in ms or s, in the syntax of ``parse_duration``."""
    return f"{seconds * 1e3:g}ms" if seconds < 1 else f"{seconds:g}s"


def parse_slo(text: str, *, streamed: bool = True) -> tuple[Objective, ...]:
    """Parse a comma-separated list of objectives; raises ``ValueError`` with the invalid part."""
    found = tuple(_objective(part, streamed=streamed) for part in text.split(","))
    names = [objective.metric for objective in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--slo {text!r}: {min(twice)} is given twice; one limit per metric")
    return found


def _objective(part: str, *, streamed: bool) -> Objective:
    head, colon, rest = part.strip().partition(":")
    percentile = _percentile(head, part) if colon else DEFAULT_PERCENTILE
    name, equals, value = (rest if colon else head).partition("=")
    if not equals:
        name, value = ("ttft" if streamed else "e2e"), name
    if name.strip() not in METRICS:
        raise ValueError(f"--slo {part!r}: no metric {name.strip()!r}; write {_SHAPE}")
    try:
        limit = parse_duration(value)
    except ValueError:
        raise ValueError(f"--slo {part!r}: {value!r} is not a duration; write {_SHAPE}") from None
    if limit <= 0:
        raise ValueError(f"--slo {part!r}: the limit must be above zero")
    return Objective(name.strip(), limit, percentile)


def _percentile(head: str, part: str) -> float:
    found = re.fullmatch(r"p([0-9]+(?:\.[0-9]+)?)", head.strip())
    if not found or not 0 < float(found[1]) < 100:
        raise ValueError(f"--slo {part!r}: {head!r} is not a percentile; write {_SHAPE}")
    return float(found[1])


def meets(latencies: Mapping[str, float | None], objectives: Sequence[Objective]) -> bool:
    """Return whether a successful request is within all limits.

    A metric that is undefined for the request (TPOT of a single token) cannot be violated by it. A response
    without a first token violates a limit on TTFT.
    """
    return all(_within(latencies.get(one.metric), one) for one in objectives)


def _within(seconds: float | None, objective: Objective) -> bool:
    if seconds is None:
        return objective.metric in {"tpot", "itl"}
    return seconds <= objective.limit_seconds


def tightest_seconds(objectives: Sequence[Objective]) -> float | None:
    """Return the smallest limit, which determines the accuracy required of the load generator."""
    return min((o.limit_seconds for o in objectives), default=None)
