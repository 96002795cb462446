"""The throughput-per-watt curve, and the matplotlib helpers of all figures.

The same bytes for the same run.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from loadgen.config.slo import parse_slo
from loadgen.measure.operating_points import frontier, level_of, qualifies
from loadgen.results.records import Point, Run
from proxy.schema import not_measured

__all__ = ["BAD", "BEST", "FLOOR", "GOOD", "INK", "SOFT", "Axes", "draw", "plain_ticks", "point_name", "svg"]

INK, SOFT, _GRID = "#17212b", "#66737f", "#e3e8ec"
GOOD, BAD, BEST, FLOOR = "#0f8b8d", "#d1495b", "#f2a104", "#8d99a6"
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_STYLE: Any = {
    "svg.hashsalt": "loadgen",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.9,
    "axes.axisbelow": True,
}


def draw(run: Run, kind: str = "svg") -> bytes:
    """Draw the curve as ``svg`` or ``png`` (200 dpi)."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
        _efficiency(left, run)
        _latency(right, run)
        _title(figure, run)
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def svg(draw_on: Callable[[Sequence[Axes]], None], panels: int, size: tuple[float, float]) -> bytes:
    """Return panels side by side, filled by the caller, as ``<svg>`` without prologue; sizes in inches."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw_on(figure.subplots(1, panels, squeeze=False)[0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    found = buffer.getvalue()
    return found[found.index(b"<svg") :]


def plain_ticks(axis: Axis) -> None:
    """Label ticks with plain numbers instead of powers."""
    axis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
    axis.set_major_formatter(_PLAIN)
    axis.set_minor_formatter(NullFormatter())


def _title(figure: Figure, run: Run) -> None:
    spec = run.spec
    figure.suptitle(
        f"Throughput per watt: {spec.get('model') or 'model'}",
        x=0.012,
        ha="left",
        fontsize=15,
        fontweight="bold",
    )
    sources = {p.energy_source for p in run.points if p.energy_source}
    reasons = {not_measured(source) for source in sources} - {None}
    simulated = bool(reasons)
    what = "simulated device" if "simulated" in reasons else "estimate"
    text = f"{what}: not a measurement" if simulated else ", ".join(sorted(sources))
    if text:
        figure.text(
            0.988,
            0.962,
            text.upper() if simulated else f"energy: {text}",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold" if simulated else "normal",
            color="white" if simulated else SOFT,
            bbox={"boxstyle": "round,pad=0.45", "fc": BAD, "ec": "none"} if simulated else None,
        )


def _x(point: Point) -> float:
    return point.output_tokens_per_second or point.requests_per_second


def point_name(point: Point) -> str:
    """Return the load of a point as a short label."""
    return f"{point.concurrency}" if point.concurrency is not None else f"{point.rate:g}/s"


def _efficiency(axes: Axes, run: Run) -> None:
    points = sorted(run.points, key=level_of)
    known = [p for p in points if (p.tokens_per_joule or p.images_per_joule) is not None]
    measured = bool(known)
    shown = known or points
    xs = [_x(p) for p in shown]
    ys = [(p.tokens_per_joule or p.images_per_joule or 0.0) if measured else _x(p) for p in shown]
    if not measured:
        xs = [p.concurrency or p.rate or 0.0 for p in shown]
    unit = "images" if any(p.images_per_joule for p in known) else "tokens"
    axes.set_title(
        f"Efficiency: {unit} per joule" if measured else "Throughput (energy not measured)",
        loc="left",
        fontsize=11,
        color=SOFT,
    )
    axes.set_xlabel(f"output {unit} per second" if measured else "load")
    axes.set_ylabel(f"{unit} per joule  (= {unit}/s per W)" if measured else f"{unit} per second")
    axes.plot(xs, ys, color="#c3ccd4", linewidth=2.2, zorder=1)
    edge = frontier(list(zip(xs, ys, strict=True))) if measured else []
    if len(edge) > 1:
        axes.plot([xs[i] for i in edge], [ys[i] for i in edge], color=GOOD, linewidth=2.6, zorder=2)
    best = run.points[run.best] if run.best is not None else None
    for point, x, y in zip(shown, xs, ys, strict=True):
        # The probes of a search are close to the knee: their labels would overlap.
        _mark(axes, point, x, y, best=point is best, named=run.knee is None)
    axes.set_xlim(0, max(xs, default=1) * 1.12 or 1)
    axes.set_ylim(0, max(ys, default=1) * 1.24 or 1)
    _legend(axes, run, edge=len(edge) > 1)


def _mark(axes: Axes, point: Point, x: float, y: float, *, best: bool, named: bool) -> None:
    fine = qualifies(point)
    axes.scatter(
        [x], [y], s=58, zorder=4, linewidths=1.8,
        facecolors=GOOD if fine else "white", edgecolors=GOOD if fine else BAD,
    )  # fmt: skip
    if best:
        axes.scatter([x], [y], s=430, zorder=3, facecolors="none", edgecolors=BEST, linewidths=2.6)
        axes.annotate(
            f"best within the SLO\n{_summary(point)}",
            (x, y),
            xytext=(-14, 16),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9.5,
            fontweight="bold",
            color=INK,
        )
    if not named:
        return
    axes.annotate(
        point_name(point), (x, y), xytext=(0, -23 if best else -17), textcoords="offset points", ha="center",
        fontsize=8.5, color=SOFT,
    )  # fmt: skip


def _summary(point: Point) -> str:
    parts = [f"{point.output_tokens_per_second or point.requests_per_second:,.0f}/s"]
    if point.watts is not None:
        parts.append(f"{point.watts:,.0f} W")
    if point.tokens_per_joule is not None:
        parts.append(f"{point.tokens_per_joule:.3g} tok/J")
    return "  ".join(parts)


def _legend(axes: Axes, run: Run, *, edge: bool) -> None:
    axes.scatter([], [], s=58, c=GOOD, label="within the SLO")
    axes.scatter([], [], s=58, facecolors="white", edgecolors=BAD, linewidths=1.8, label="outside")
    if edge:
        axes.plot([], [], color=GOOD, linewidth=2.6, label="frontier")
    floor = next((p.idle_watts for p in run.points if p.idle_watts is not None), None)
    if floor is not None:
        axes.plot([], [], " ", label=f"idle floor {floor:,.0f} W")
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _latency(axes: Axes, run: Run) -> None:
    """Draw latency against load with the limit of the SLO, and power in grey if known."""
    objective = parse_slo(run.spec["slo"])[0] if run.spec.get("slo") else None
    seen = "ttft" if any(p.ttft_seconds.count for p in run.points) else "e2e"
    metric = objective.metric if objective else seen
    wanted = f"p{objective.percentile:g}" if objective else "p99"
    points = sorted(run.points, key=level_of)
    axes.set_title(f"{metric.upper()} against load", loc="left", fontsize=11, color=SOFT)
    axes.set_xlabel("requests in flight" if run.spec.get("mode") == "concurrency" else "requests/s")
    axes.set_ylabel("milliseconds")
    xs = [level_of(p) for p in points]
    style = "-" if run.knee is None else ""
    tops: Sequence[tuple[str, str, str]] = (("p50", GOOD, style), (wanted, INK, style))
    for name, colour, line in tops:
        values = [getattr(getattr(p, f"{metric}_seconds"), name, None) for p in points]
        pairs = [(x, v * 1e3) for x, v in zip(xs, values, strict=True) if v is not None]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), linestyle=line, marker="o", ms=4, color=colour, label=name)
    if objective is not None:
        limit = objective.limit_seconds * 1e3
        axes.axhline(limit, color=BAD, linewidth=1.6, linestyle=(0, (5, 3)), label=f"SLO {objective}")
        axes.axhspan(limit, limit * 1e4, color=BAD, alpha=0.05, linewidth=0)
    _scales(axes, xs)
    if run.knee is not None and run.knee.level is not None:
        axes.axvline(run.knee.level, color=BEST, linewidth=1.8, label=f"knee {run.knee.level:g}")
        if run.knee.low is not None and run.knee.high is not None:
            axes.axvspan(run.knee.low, run.knee.high, color=BEST, alpha=0.12, linewidth=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", frameon=False, fontsize=9)


def _scales(axes: Axes, xs: Sequence[float]) -> None:
    lines = [line for line in axes.get_lines() if len(cast("Sequence[float]", line.get_xdata()))]
    tops = [float(y) for line in lines for y in cast("Sequence[float]", line.get_ydata())]
    if tops and min(tops) > 0:
        axes.set_yscale("log")
        axes.set_ylim(min(tops) / 1.6, max(tops) * 3)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())
    if len(xs) > 2 and max(xs) > 8 * min(xs) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(_PLAIN)
