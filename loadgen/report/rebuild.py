"""Reports made from the two files of a run directory: the same bytes each time."""

from pathlib import Path

from loadgen.report.csv_export import points_csv
from loadgen.report.figures import draw_figures
from loadgen.report.html_page import report_html
from loadgen.results.output_files import write_file
from loadgen.results.records import Record, Run

_DRAWN = ("curve.svg", "curve.png")


def rebuild(out: Path, run: Run, records: list[Record], html: Path | None = None) -> list[Path]:
    """Report, table and figures from what was measured: the same bytes each time. Says what it wrote."""
    drawn = draw_figures(run, records)
    made = {
        html or out / "report.html": report_html(run, records, drawn),
        out / "points.csv": points_csv(run),
    }
    if drawn is not None:
        made |= dict(zip((out / name for name in _DRAWN), (drawn.svg, drawn.png), strict=True))
    for path, data in made.items():
        write_file(path, data)
    if drawn is None:  # figures of a run that was replaced must not stay
        for name in _DRAWN:
            (out / name).unlink(missing_ok=True)
    return list(made)
