"""``report.html``: one file that opens offline, rebuilt to the same bytes from the run directory."""

from collections.abc import Sequence
from html import escape

from loadgen.report.figures import MATPLOTLIB_HINT, Figures
from loadgen.report.table import COLUMNS, headline, row
from loadgen.results.records import Record, Run
from proxy.schema import not_measured

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#17212b;max-width:1100px;margin:2.5em auto;padding:0 1em}
h1{font-size:1.7em;margin:0}h2{margin-top:1.8em;font-size:1.15em}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
td,th{padding:.35em .7em;text-align:right;border-bottom:1px solid #e3e8ec;white-space:nowrap}
.best td{background:#fff6df;font-weight:600}.verdict{font-size:1.15em}.soft{color:#66737f}
svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
"""


def report_html(run: Run, records: Sequence[Record], figures: Figures | None) -> bytes:
    """Return the page; without figures it contains the instructions to get them."""
    points = enumerate(run.points) if run.knee is None else ()
    notes = [*run.notes, *(f"point {i + 1}: {n}" for i, p in points for n in p.notes)]
    body = "".join(
        (
            "<h1>loadgen</h1>",
            f"<p class=verdict>{escape(headline(run))}</p>",
            _banner(run),
            _curve(figures),
            "<h2>Points</h2>",
            _table(run),
            _figure("Latency distributions", figures.distributions if figures else None),
            _figure("Power and joules", figures.energy if figures else None),
            _notes(notes),
            _provenance(run, len(records)),
        )
    )
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport"
        f' content="width=device-width"><title>loadgen {escape(run.run_id)}</title>'
        f"<style>{_CSS}</style><body>{body}</body></html>\n"
    )
    return page.encode()


def _curve(figures: Figures | None) -> str:
    if figures is None:
        return f"<p class=soft>{escape(MATPLOTLIB_HINT[0].upper() + MATPLOTLIB_HINT[1:])}.</p>"
    svg = figures.svg.decode()
    return svg[svg.index("<svg") :]


def _figure(title: str, figure: bytes | None) -> str:
    return f"<h2>{title}</h2>{figure.decode()}" if figure else ""


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{lines}</ul>" if notes else ""


def _banner(run: Run) -> str:
    reasons = {not_measured(p.energy_source) for p in run.points}
    kind = "Simulated device" if "simulated" in reasons else "Estimate" if "estimate" in reasons else None
    return f"<p><b>{kind}: joules and watts here are not a measurement.</b></p>" if kind else ""


def _table(run: Run) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    rows = "".join(
        f"<tr{' class=best' if index == run.best else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row(point))
        + "</tr>"
        for index, point in enumerate(run.points)
    )
    return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _provenance(run: Run, requests: int) -> str:
    spec = ", ".join(f"{key}={value}" for key, value in run.spec.items() if value is not None)
    versions = ", ".join(f"{key} {value}" for key, value in run.versions.items())
    return (
        f"<h2>How</h2><p class=soft>{requests} requests, seed {run.seed}. Latencies are from the"
        f" scheduled arrival.<br>{escape(spec)}<br>{escape(versions)}</p>"
    )
