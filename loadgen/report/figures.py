"""The figures of a run, where matplotlib is there: the extra ``plot``, 100 MB that measuring can spare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.results.records import Record, Run

MATPLOTLIB_HINT: Final = (
    "no figures: they need matplotlib: pip install 'jouleproxy[plot]', then loadgen report RUN"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """The curve as files, and what the page shows below it (None: nothing to show)."""

    svg: bytes
    png: bytes
    distributions: bytes | None
    energy: bytes | None


def draw_figures(run: Run, records: Sequence[Record]) -> Figures | None:
    """All of them: the same bytes for the same run. None where matplotlib is not installed."""
    try:
        from loadgen.report import charts, plot  # noqa: PLC0415  # takes most of a second, and may not be there
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
