"""The report of ``make gpu``: one JSON file, and the same figures as a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from proxy.gpu.closure import Repeated
from proxy.gpu.curve import Curve
from proxy.gpu.forms import Form, Point
from proxy.gpu.nvml_facts import Agreement, CounterFacts, Observed, Reading
from proxy.gpu.served import SetResult

SCHEMA: Final = 1


@dataclass(slots=True)
class Report:
    """Results of all parts that were run; None or empty: not run. ``failed``: parts and their errors."""

    simulated: bool
    model: str
    versions: dict[str, str]
    schema: int = SCHEMA
    readings: dict[str, Reading] = field(default_factory=dict)
    counter: CounterFacts | None = None
    agreement: list[Agreement] = field(default_factory=list)
    observer: list[Observed] = field(default_factory=list)
    truth: list[SetResult] = field(default_factory=list)
    closure: list[Repeated] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)
    static_share: float | None = None
    curves: list[Curve] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def write(report: Report, out: Path) -> None:
    """Write ``gpu.json`` and ``gpu.md`` into a folder; the exponent of the maximum is null in JSON."""
    encoded = msgspec.json.encode(report)
    (out / "gpu.json").write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
    (out / "gpu.md").write_text(page(report))


def page(report: Report) -> str:
    """Return the page."""
    mark = " (SIMULATED)" if report.simulated else ""
    parts = [f"# Measurements on a GPU{mark}", _head(report)]
    for title, body in _SECTIONS:
        if text := body(report):
            parts += [f"## {title}{mark}", text]
    if report.failed:
        parts += ["## Failed", "\n".join(f"- {part}: {reason}" for part, reason in report.failed.items())]
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    lines = [f"Made by `make gpu`. Model: {report.model}, random weights. {_listed(report.versions)}."]
    if report.simulated:
        lines.append(
            "**SIMULATED: no GPU was used.** Power is that of a model (`proxy/truth/machine.py`) behind the "
            "simulated NVML library; parts a, c and d run in virtual time. The figures show that the program "
            "works, and nothing about any device."
        )
    lines.append("Seconds: " + _listed({part: f"{s:.0f}" for part, s in report.seconds.items()}) + ".")
    return "\n\n".join(lines)


def _listed(items: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in items.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _readings(report: Report) -> str:
    rows = [
        [name, str(r.value) if r.error is None else r.error, _number(r.median_us), _number(r.p95_us)]
        for name, r in report.readings.items()
    ]
    return _table(["reading", "value", "call, us, median", "p95"], rows) if rows else ""


def _counter(report: Report) -> str:
    found = report.counter
    if found is None:
        return ""
    if found.period_ms is None:
        return f"The counter changed fewer than three times ({found.polls_per_second:.0f} polls/s)."
    low, high = _number(found.period_low_ms), _number(found.period_high_ms)
    return (
        f"The counter changes every {found.period_ms:.1f} ms (5-95 %: {low}-{high} ms) by multiples of "
        f"{found.quantum_mj} mJ; {found.polls_per_second:.0f} polls/s."
    )


def _agreement(report: Report) -> str:
    rows = [
        [
            a.load,
            *(_number(w) for w in (a.counter, a.instant, a.average, a.usage)),
            _number(a.clock_mhz, ".0f"),
            "-" if a.limited is None else f"{a.limited:#x}",
        ]
        for a in report.agreement
    ]
    heads = ["load", "counter, W", "instant, W", "average, W", "usage, W", "SM clock, MHz", "lowered by"]
    return _table(heads, rows) if rows else ""


def _observer(report: Report) -> str:
    rows = [
        [str(o.polls_per_second), _number(o.joules_per_step, ".4f"), f"{o.seconds_per_step * 1e3:.3f}"]
        for o in report.observer
    ]
    return _table(["polls/s", "J/step", "ms/step"], rows) if rows else ""


def _truth(report: Report) -> str:
    if not report.truth:
        return ""
    intro = (
        "The truth of a request is the sum of its Shapley values over its steps, from the measured joules "
        "of every coalition of each step; no model is involved. Errors are relative, by request and round: "
        "median / 95th percentile / share in the interval. *Closure*: sum of the truth over the joules of "
        "the counter. *Waiting*: part of it between steps. *Halves*: median error of the sum of `steps` over "
        "random halves of the requests. *On the wire*: sent through the proxy, which recorded its timeline."
    )
    names = [score.policy for score in report.truth[0].scores]
    rows = []
    for t in report.truth:
        cells = [f"{s.median:.1%} / {s.p95:.1%} / {s.inside:.0%}" for s in t.scores]
        rows.append(
            [
                t.name,
                f"{t.requests} x {t.rounds}",
                f"{t.compositions} / {t.coalitions}",
                f"{t.truth_error:.1%}",
                f"{t.closure:.3f}",
                f"{t.waiting:.0%}",
                f"{t.halves['steps']:.2%}",
                *cells,
            ]
        )
    heads = [
        "set",
        "requests x rounds",
        "steps / coalitions",
        "error of truth",
        "closure",
        "waiting",
        "halves",
        *(f"`{n}`" for n in names),
    ]
    return f"{intro}\n\n{_table(heads, rows)}"


def _closure(report: Report) -> str:
    rows = [
        [r.what, f"{r.first:.4f}", f"{r.second:.4f}", f"{r.difference:+.2%}", f"{r.error:.2%}"]
        for r in report.closure
    ]
    return _table(["check", "J", "J", "difference", "standard error"], rows) if rows else ""


def _forms(report: Report) -> str:
    if not report.forms:
        return ""
    rows = [
        [
            "maximum" if f.overlap == float("inf") else f"{f.overlap:g}",
            f"{f.time_residual:.1%}",
            f"{f.energy_residual:.1%}",
            f"{f.overhead_s * 1000.0:.2f}",
            f"{f.weights_s * 1000.0:.2f}",
            f"{f.context_s * 1000000000.0:.1f}",
            f"{f.token_s * 1000000.0:.2f}",
            f"{f.watts:.0f}",
            f"{f.memory_watts:.0f}",
            f"{f.compute_watts:.0f}",
        ]
        for f in report.forms
    ]
    heads = ["p", "time, rms", "energy, rms", "overhead, ms", "weights, ms", "context, ns/token", "token, us"]
    heads += ["W", "memory, W", "compute, W"]
    share = (
        ""
        if report.static_share is None
        else f"\n\nStatic share of a step of eight: {report.static_share:.0%}."
    )
    return f"Fitted to {len(report.points)} measured steps; p = 1 is the sum.\n\n{_table(heads, rows)}{share}"


def _curves(report: Report) -> str:
    rows = []
    for curve in report.curves:
        for level in curve.levels:
            met = "-" if level.slo_met is None else "yes" if level.slo_met else "no"
            rows.append(
                [
                    curve.name,
                    str(level.concurrency),
                    f"{level.output_tokens_per_second:.0f}",
                    _number(level.watts, ".0f"),
                    _number(level.tokens_per_joule, ".3f"),
                    met,
                    str(level.failed),
                ]
            )
    heads = ["sweep", "concurrency", "tokens/s", "W", "tokens/J", "SLO met", "failed"]
    picture = "![Throughput per watt](direct/curve.svg)"
    return f"{_table(heads, rows)}\n\n{picture}" if rows else ""


_SECTIONS: Final[tuple[tuple[str, Callable[[Report], str]], ...]] = (
    ("a. Readings of NVML", _readings),
    ("a. The energy counter", _counter),
    ("a. Agreement of the readings under known loads", _agreement),
    (
        "a. Observer effect: a step of eight while polls are added to the constant one",
        _observer,
    ),
    ("c. Measured truth", _truth),
    ("c. Closure", _closure),
    ("d. Form of time and energy", _forms),
    ("e. Throughput per watt, on the wire", _curves),
)
