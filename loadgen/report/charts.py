"""The figures of the report below the curve: latency distributions, power against load, joules by part."""

from collections.abc import Callable, Sequence

import numpy as np

from loadgen.config.slo import parse_slo
from loadgen.measure.metrics import e2e, tpot, ttft, values
from loadgen.measure.operating_points import level_of
from loadgen.measure.window import Window
from loadgen.report.plot import BAD, BEST, FLOOR, GOOD, INK, SOFT, Axes, plain_ticks, point_name, svg
from loadgen.results.records import Point, Record, Run
from proxy.units import ns_from_seconds

COLOURS = {
    "static": "#355070", "prefill": "#0f8b8d", "decode": "#7fb069", "context": "#f2a104",
    "unseparated": "#8d7b9e", "idle": "#c3ccd4", "unattributed": "#d1495b",
}  # fmt: skip
_LINES = ("#355070", "#0f8b8d", "#7fb069", "#f2a104", "#d1495b", "#8d99a6")
_MOST_LINES = len(_LINES)
_METRICS: dict[str, Callable[[Record], float | None]] = {"ttft": ttft, "tpot": tpot, "e2e": e2e}
_LONGEST = 400
_WIDE = 6


def distributions(run: Run, records: Sequence[Record]) -> bytes | None:
    """Draw empirical distribution functions of TTFT, TPOT and E2E from scheduled; None without data."""
    chosen = _chosen(run)
    found = {
        name: [(index, _seconds(run.points[index], index, records, metric)) for index in chosen]
        for name, metric in _METRICS.items()
    }
    shown = {name: rows for name, rows in found.items() if any(len(row[1]) for row in rows)}
    if not shown:
        return None

    def draw(panels: Sequence[Axes]) -> None:
        for axes, (name, rows) in zip(panels, shown.items(), strict=True):
            _ecdf(axes, run, name, rows)
        panels[-1].legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, title="load",
            title_fontsize=8,
        )  # fmt: skip

    return svg(draw, len(shown), (3.3 * len(shown) + 0.9, 3.3))


def _chosen(run: Run) -> list[int]:
    """Return at most six points: evenly spaced over the loads, and the best one."""
    order = sorted(range(len(run.points)), key=lambda i: level_of(run.points[i]))
    if len(order) > _MOST_LINES:
        picks = {order[round(i)] for i in np.linspace(0, len(order) - 1, _MOST_LINES - 1)}
        picks |= set() if run.best is None else {run.best}
        order = [index for index in order if index in picks]
    return order


def _seconds(
    point: Point, index: int, records: Sequence[Record], metric: Callable[[Record], float | None]
) -> list[float]:
    start, end = point.window_seconds
    window = Window(ns_from_seconds(start), ns_from_seconds(end))
    return sorted(values([r for r in records if r.point == index and window.holds(r.scheduled_ns)], metric))


def _ecdf(axes: Axes, run: Run, name: str, rows: Sequence[tuple[int, list[float]]]) -> None:
    axes.set_title(f"{name.upper()}: % of answered requests", loc="left", fontsize=10.5, color=SOFT)
    for colour, (index, seconds) in zip(_LINES, rows, strict=False):
        if not seconds:
            continue
        shares = np.arange(1, len(seconds) + 1) / len(seconds) * 100
        # More points would not be visible; each quantile keeps its position.
        keep = np.unique(np.linspace(0, len(seconds) - 1, _LONGEST).round().astype(int))
        label = point_name(run.points[index])
        xs = np.maximum(np.array(seconds)[keep] * 1e3, 1e-3)
        axes.step(xs, shares[keep], where="post", color=colour, linewidth=1.7, label=label)
    for objective in parse_slo(run.spec["slo"]) if run.spec.get("slo") else ():
        if objective.metric == name:
            axes.axvline(objective.limit_seconds * 1e3, color=BAD, linewidth=1.4, linestyle=(0, (5, 3)))
            axes.axhline(objective.percentile, color=BAD, linewidth=0.9, linestyle=(0, (1, 2)))
    ends = [value for _, seconds in rows for value in (seconds[:1] + seconds[-1:])]
    if min(ends) > 0 and max(ends) > _WIDE * min(ends):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set_xlabel("milliseconds")
    axes.set_ylim(0, 102)


def energy(run: Run) -> bytes | None:
    """Draw power against requests in flight, and joules per request by part; None if not measured."""
    known = [p for p in run.points if p.watts is not None and p.mean_in_flight is not None]
    if not known:
        return None
    known.sort(key=level_of)

    # Local devices have no parts, and a point in which no request ended has no joules per request.
    parted = [p for p in known if p.joules and p.joules_per_request and any(p.parts_joules.values())]

    def draw(panels: Sequence[Axes]) -> None:
        _power(panels[0], run, known)
        if parted:
            _parts(panels[1], parted)

    return svg(draw, 2 if parted else 1, (10.4 if parted else 5.2, 3.5))


def _power(axes: Axes, run: Run, known: Sequence[Point]) -> None:
    axes.set_title("Power against requests in flight", loc="left", fontsize=10.5, color=SOFT)
    pairs = sorted((p.mean_in_flight or 0.0, p.watts or 0.0) for p in known)
    axes.plot(*zip(*pairs, strict=True), color=GOOD, marker="o", ms=5, linewidth=1.8)
    best = run.points[run.best] if run.best is not None else None
    if best is not None and best.watts is not None and best.mean_in_flight is not None:
        axes.scatter(
            [best.mean_in_flight], [best.watts], s=230, facecolors="none", edgecolors=BEST, linewidths=2.2
        )
    floor = next((p.idle_watts for p in known if p.idle_watts is not None), None)
    if floor is not None:
        axes.axhline(floor, color=FLOOR, linewidth=1.5, linestyle=(0, (5, 3)))
        axes.annotate(
            f"idle floor {floor:,.0f} W", (0.99, floor), xycoords=("axes fraction", "data"),
            xytext=(0, 4), textcoords="offset points", ha="right", fontsize=8.5, color=SOFT,
        )  # fmt: skip
    axes.set_xlabel("requests in flight, mean")
    axes.set_ylabel("watts")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _parts(axes: Axes, known: Sequence[Point]) -> None:
    axes.set_title("Joules per request, by part", loc="left", fontsize=10.5, color=SOFT)
    places = np.arange(len(known))
    below = np.zeros(len(known))
    for name, colour in COLOURS.items():
        shares = np.array([max(p.parts_joules.get(name) or 0.0, 0.0) / (p.joules or 1.0) for p in known])
        heights = shares * np.array([p.joules_per_request or 0.0 for p in known])
        if heights.any():
            axes.bar(places, heights, 0.72, bottom=below, color=colour, label=name)
            below += heights
    axes.set_xticks(places, [point_name(p) for p in known], rotation=60 if len(known) > 8 else 0)
    axes.set_ylabel("joules per request")
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, max(float(below.max(initial=0.0)) * 1.1, 1e-9))
    axes.legend(loc="upper right", frameon=False, fontsize=8, ncols=2, labelcolor=INK)
