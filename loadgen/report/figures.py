"""All figures of a run, if matplotlib (the extra ``plot``) is installed; measuring does not need it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.results.records import Record, Run

MATPLOTLIB_HINT: Final = (
    "no figures: they need matplotlib: pip install 'jouleproxy[plot]', then loadgen report RUN"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The curve as SVG and PNG, and the figures below it on the page (None: no data)."""

    svg: bytes
    png: bytes
    distributions: bytes | None
    energy: bytes | None


def draw_figures(run: Run, records: Sequence[Record]) -> Figures | None:
    """Return all figures, the same bytes for the same run; None if matplotlib is not installed."""
    try:
        from loadgen.report import charts, plot  # noqa: PLC0415  # slow to import, and optional
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    return Figures(
        plot.draw(run, "svg"),
        plot.draw(run, "png"),
        charts.distributions(run, records),
        charts.energy(run),
    )
