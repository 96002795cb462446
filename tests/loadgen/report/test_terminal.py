"""Output of a run: plain lines in a log, a live line on a terminal."""

import io

import pytest

from loadgen.drive.attack import Progress
from loadgen.report.table import COLUMNS
from loadgen.report.terminal import Terminal
from loadgen.results.records import Knee, Point, Run
from tests.loadgen.samples import point


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def run(*points: Point, best: int | None = None, knee: Knee | None = None) -> Run:
    return Run(
        run_id="abc", spec={"slo": "p95:ttft=200ms"}, seed=0, versions={}, verdict="pass", best=best,
        points=list(points), knee=knee,
    )  # fmt: skip


def test_a_log_has_one_line_per_event_and_no_control_codes() -> None:
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        terminal.note("energy not measured: [no] admin port")
        terminal.point_started("4 at once", Progress())
        terminal.point_ended(point(4, watts=200.0, tokens_per_joule=0.5))
    assert stream.getvalue().splitlines() == [
        "note: energy not measured: [no] admin port",
        "4 at once: started",
        "4 at once: 5 req/s, TTFT p50 50 ms, 200 W, 0.5 tok/J, SLO met",
    ]


def test_a_terminal_has_one_live_line() -> None:
    stream, progress = Screen(), Progress()
    with Terminal(stream) as terminal:
        terminal.point_started("4 at once", progress)
        progress.sent, progress.ended, progress.in_flight, progress.elapsed_ns = 9, 5, 4, 2_000_000_000
        assert terminal._live is not None
        terminal._live.refresh()
    assert "4 at once: 2 s, sent 9, ended 5, failed 0, in flight 4, 0 tokens" in stream.getvalue()
    assert "started" not in stream.getvalue()


def test_before_the_first_point_the_live_line_shows_the_check_of_the_server() -> None:
    stream = Screen()
    with Terminal(stream) as terminal:
        assert terminal._live is not None
        terminal._live.refresh()
    assert "checking the server" in stream.getvalue()


def test_the_end_is_a_table_its_notes_and_the_verdict() -> None:
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        terminal.finished(run(point(1, notes=["a short one"]), point(2), best=1))
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == " ".join(COLUMNS).split()
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[2].endswith("met *")
    assert "point 1: a short one" in lines
    assert lines[-1].startswith("PASS (SLO p95:ttft=200ms); best point: concurrency 2")


@pytest.mark.parametrize(
    ("source", "says"), [("simulated: H100", "SIMULATED"), ("estimate: cpu", "an ESTIMATE"), ("nvml", None)]
)
def test_energy_that_was_not_measured_is_marked(source: str, says: str | None) -> None:
    stream = io.StringIO()
    with Terminal(stream) as terminal:
        terminal.finished(run(point(1, energy_source=source)))
    assert (f"energy is {says}: not a measurement" if says else "PASS") in stream.getvalue()
    assert ("not a measurement" in stream.getvalue()) == (says is not None)


def test_quiet_prints_nothing() -> None:
    stream = Screen()
    with Terminal(stream, quiet=True) as terminal:
        terminal.point_started("1 at once", Progress())
        terminal.finished(run(point(1)))
    assert stream.getvalue() == ""
