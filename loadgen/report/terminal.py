"""Output during a run: one live line on a terminal, plain lines otherwise."""

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadgen.drive.attack import Progress
from loadgen.report.table import COLUMNS, headline, row
from loadgen.results.records import Point, Run
from loadgen.run.view import View
from proxy.schema import not_measured
from proxy.units import NS_PER_SECOND

_STYLES = {"met": "green", "missed": "red", "generator!": "bold red"}
_PLAIN_WIDTH = 140


class Terminal(View):
    """Prints notes, progress and points; a context manager."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._label = ""
        self._progress = Progress()
        tty = stream.isatty()
        self._console = Console(file=stream, quiet=quiet, width=None if tty else _PLAIN_WIDTH)
        self._live = (
            Live(console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True)
            if tty and not quiet
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print a note, in colour."""
        self._console.print(Text("note: " + text, style="yellow"))

    def line(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text))

    def watch(self, label: str, progress: Progress) -> None:
        """Show the progress of a probe or point in the live line."""
        self._label, self._progress = label, progress

    def point_started(self, label: str, progress: Progress) -> None:
        """Show the progress of a point; print a line if there is no live line."""
        self.watch(label, progress)
        if self._live is None:
            self._console.print(Text(f"{label}: started"))

    def point_ended(self, point: Point) -> None:
        """Print one line for a point."""
        shown = dict(zip(COLUMNS, row(point), strict=False))
        line = f"{self._label}: {shown['req/s']} req/s, TTFT p50 {shown['TTFT p50']} ms"
        if point.watts is not None:
            line += f", {shown['W']} W, {shown['tok/J']} tok/J"
        self._console.print(Text(f"{line}, SLO {shown['SLO']}"))

    def finished(self, run: Run) -> None:
        """Print the table of points, their notes and the verdict."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for index, point in enumerate(run.points):
            cells = row(point)
            style = _STYLES.get(cells[-1].rstrip("?"), "")
            mark = " *" if index == run.best and len(run.points) > 1 else ""
            table.add_row(cells[0], *cells[1:-1], Text(cells[-1] + mark, style=style))
        self._console.print(table)
        self._console.print(Text("latencies in ms, from the scheduled arrival", style="dim"))
        for number, point in enumerate(run.points, start=1):
            for note in point.notes if run.knee is None else ():
                self._console.print(Text(f"point {number}: {note}", style="dim"))
        reasons = {not_measured(p.energy_source) for p in run.points}
        if reasons != {None} and reasons:
            what = "SIMULATED" if "simulated" in reasons else "an ESTIMATE"
            self._console.print(Text(f"energy is {what}: not a measurement", style="bold yellow"))
        self._console.print(Text(headline(run), style="bold"))

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text))

    def _line(self) -> Text:
        p = self._progress
        if not self._label:
            return Text("checking the server ...")
        seconds = p.elapsed_ns / NS_PER_SECOND
        return Text(
            f"{self._label}: {seconds:.0f} s, sent {p.sent}, ended {p.ended}, failed {p.failed},"
            f" in flight {p.in_flight}, {p.tokens} tokens"
        )
