"""Reports made from the two files of a run directory: the same bytes each time."""

from pathlib import Path

from loadgen.report.csv_export import points_csv
from loadgen.report.figures import draw_figures
from loadgen.report.html_page import report_html
from loadgen.results.output_files import write_file
from loadgen.results.records import Record, Run

_CURVES = ("curve.svg", "curve.png")


def rebuild(out: Path, run: Run, records: list[Record], html: Path | None = None) -> list[Path]:
    """Write page, CSV and figures of a run, the same bytes each time; return the files written.

    Raises ``OSError`` with the file that cannot be written.
    """
    drawn = draw_figures(run, records)
    made = {
        html or out / "report.html": report_html(run, records, drawn),
        out / "points.csv": points_csv(run),
    }
    if drawn is not None:
        made |= dict(zip((out / name for name in _CURVES), (drawn.svg, drawn.png), strict=True))
    for path, data in made.items():
        write_file(path, data)
    if drawn is None:  # remove the figures of a run that was replaced
        for name in _CURVES:
            (out / name).unlink(missing_ok=True)
    return list(made)
