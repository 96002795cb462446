"""The throughput-per-watt curve. The only file that knows matplotlib; the same run, the same bytes."""

import io
from collections.abc import Sequence
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from loadgen.records import Point, Run
from loadgen.slo import parse_slo
from loadgen.sweep import frontier, qualifies

_INK, _SOFT, _GRID = "#17212b", "#66737f", "#e3e8ec"
_GOOD, _BAD, _BEST, _FLOOR = "#0f8b8d", "#d1495b", "#f2a104", "#8d99a6"
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_STYLE: Any = {
    "svg.hashsalt": "loadgen",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.9,
    "axes.axisbelow": True,
}


def draw(run: Run, kind: str = "svg") -> bytes:
    """The picture as ``svg`` or ``png`` (200 dots an inch)."""
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
    simulated = any("simulated" in source for source in sources)
    text = "simulated device: not a measurement" if simulated else ", ".join(sorted(sources))
    if text:
        figure.text(
            0.988,
            0.962,
            text.upper() if simulated else f"energy: {text}",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold" if simulated else "normal",
            color="white" if simulated else _SOFT,
            bbox={"boxstyle": "round,pad=0.45", "fc": _BAD, "ec": "none"} if simulated else None,
        )


def _x(point: Point) -> float:
    return point.output_tokens_per_second or point.requests_per_second


def _name(point: Point) -> str:
    return f"{point.concurrency}" if point.concurrency is not None else f"{point.rate:g}/s"


def _efficiency(axes: Axes, run: Run) -> None:
    known = [p for p in run.points if (p.tokens_per_joule or p.images_per_joule) is not None]
    measured = bool(known)
    shown = known or list(run.points)
    xs = [_x(p) for p in shown]
    ys = [(p.tokens_per_joule or p.images_per_joule or 0.0) if measured else _x(p) for p in shown]
    if not measured:
        xs = [p.concurrency or p.rate or 0.0 for p in shown]
    unit = "images" if any(p.images_per_joule for p in known) else "tokens"
    axes.set_title(
        f"Efficiency: {unit} per joule" if measured else "Throughput (energy not measured)",
        loc="left",
        fontsize=11,
        color=_SOFT,
    )
    axes.set_xlabel(f"output {unit} per second" if measured else "load")
    axes.set_ylabel(f"{unit} per joule  (= {unit}/s per W)" if measured else f"{unit} per second")
    axes.plot(xs, ys, color="#c3ccd4", linewidth=2.2, zorder=1)
    edge = frontier(list(zip(xs, ys, strict=True))) if measured else []
    if len(edge) > 1:
        axes.plot([xs[i] for i in edge], [ys[i] for i in edge], color=_GOOD, linewidth=2.6, zorder=2)
    best = run.points[run.best] if run.best is not None else None
    for point, x, y in zip(shown, xs, ys, strict=True):
        _mark(axes, point, x, y, best=point is best)
    axes.set_xlim(0, max(xs, default=1) * 1.12 or 1)
    axes.set_ylim(0, max(ys, default=1) * 1.24 or 1)
    _legend(axes, run, edge=len(edge) > 1)


def _mark(axes: Axes, point: Point, x: float, y: float, *, best: bool) -> None:
    fine = qualifies(point)
    axes.scatter(
        [x], [y], s=58, zorder=4, linewidths=1.8,
        facecolors=_GOOD if fine else "white", edgecolors=_GOOD if fine else _BAD,
    )  # fmt: skip
    if best:
        axes.scatter([x], [y], s=430, zorder=3, facecolors="none", edgecolors=_BEST, linewidths=2.6)
        axes.annotate(
            f"best within the SLO\n{_summary(point)}",
            (x, y),
            xytext=(-14, 16),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9.5,
            fontweight="bold",
            color=_INK,
        )
    axes.annotate(
        _name(point), (x, y), xytext=(0, -17), textcoords="offset points", ha="center",
        fontsize=8.5, color=_SOFT,
    )  # fmt: skip


def _summary(point: Point) -> str:
    parts = [f"{point.output_tokens_per_second or point.requests_per_second:,.0f}/s"]
    if point.watts is not None:
        parts.append(f"{point.watts:,.0f} W")
    if point.tokens_per_joule is not None:
        parts.append(f"{point.tokens_per_joule:.3g} tok/J")
    return "  ".join(parts)


def _legend(axes: Axes, run: Run, *, edge: bool) -> None:
    axes.scatter([], [], s=58, c=_GOOD, label="within the SLO")
    axes.scatter([], [], s=58, facecolors="white", edgecolors=_BAD, linewidths=1.8, label="outside")
    if edge:
        axes.plot([], [], color=_GOOD, linewidth=2.6, label="frontier")
    floor = next((p.idle_watts for p in run.points if p.idle_watts is not None), None)
    if floor is not None:
        axes.plot([], [], " ", label=f"idle floor {floor:,.0f} W")
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _latency(axes: Axes, run: Run) -> None:
    """Latency against load, with the SLO's boundary; power beside it in grey where known."""
    objective = parse_slo(run.spec["slo"])[0] if run.spec.get("slo") else None
    metric = objective.metric if objective else "ttft"
    wanted = f"p{objective.percentile:g}" if objective else "p99"
    points = run.points
    axes.set_title(f"{metric.upper()} against load", loc="left", fontsize=11, color=_SOFT)
    axes.set_xlabel("requests in flight" if run.spec.get("mode") == "concurrency" else "requests/s")
    axes.set_ylabel("milliseconds")
    xs = [float(p.concurrency or p.rate or 0) for p in points]
    tops: Sequence[tuple[str, str, str]] = (("p50", _GOOD, "-"), (wanted, _INK, "-"))
    for name, colour, line in tops:
        values = [getattr(getattr(p, f"{metric}_seconds"), name, None) for p in points]
        pairs = [(x, v * 1e3) for x, v in zip(xs, values, strict=True) if v is not None]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), line, marker="o", ms=4, color=colour, label=name)
    if objective is not None:
        limit = objective.limit_seconds * 1e3
        axes.axhline(limit, color=_BAD, linewidth=1.6, linestyle=(0, (5, 3)), label=f"SLO {objective}")
        axes.axhspan(limit, limit * 1e4, color=_BAD, alpha=0.05, linewidth=0)
    _scales(axes, xs)
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
