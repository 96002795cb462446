"""Virtual time: the same pacers, metrics and files, and no server."""

from pathlib import Path

import pytest

from loadgen.cli import main
from loadgen.options import read_config
from loadgen.pacer import OpenLoop, schedule_ns
from loadgen.planning import plan
from loadgen.rundir import load

PROFILE = "h100-llama-3.1-8b"


def sweep(out: Path, *argv: str, profile: str = PROFILE) -> int:
    return main(["sweep", "--simulate", profile, "--quiet", "--out", str(out), "--duration", "3s", *argv])


def test_an_open_loop_keeps_its_schedule_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    argv = ["--rate", "4,16", "--seed", "0", "--warmup", "none"]
    assert sweep(tmp_path / "a", *argv) == sweep(tmp_path / "b", *argv) == 0
    run, records = load(tmp_path / "a")
    assert (run.points, records) == (load(tmp_path / "b")[0].points, load(tmp_path / "b")[1])
    _, pacer = plan(read_config("sweep", [*argv, "--duration", "3s"]).spec, 16)
    assert isinstance(pacer, OpenLoop)
    assert [r.scheduled_ns for r in records if r.point == 1] == schedule_ns(pacer)
    assert "simulated" in (run.points[0].energy_source or "")
    assert "nothing was measured" in run.notes[0]
    for point in run.points:
        assert point.failed == 0
        assert sum(v or 0 for v in point.parts_joules.values()) == pytest.approx(point.joules, rel=1e-6)
        assert point.late_seconds.max == pytest.approx(0, abs=1e-8)


def test_a_closed_loop_keeps_its_level(tmp_path: Path) -> None:
    assert sweep(tmp_path, "--concurrency", "1,8") == 0
    few, many = load(tmp_path)[0].points
    assert (few.max_in_flight, many.max_in_flight) == (1, 8)
    assert many.tokens_per_joule is not None
    assert few.tokens_per_joule is not None
    assert many.tokens_per_joule > 2 * few.tokens_per_joule


def test_a_cap_holds_requests_back(tmp_path: Path) -> None:
    # Exit 1: a queue that only grows is no operating point.
    assert sweep(tmp_path, "--rate", "30", "--max-in-flight", "2", "--warmup", "none") == 1
    (point,) = load(tmp_path)[0].points
    assert point.late_seconds.max is not None
    assert point.late_seconds.max > 1.0
    assert any("--max-in-flight held" in note for note in point.notes)


def test_what_cannot_be_simulated_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, "--rate", "4", profile="no-such-gpu") == 2
    assert sweep(tmp_path, "--rate", "4", "--turns", "3") == 2
    error = capsys.readouterr().err
    assert "no-such-gpu" in error
    assert "--turns is not known in virtual time" in error
    assert error.count("\n") == 2
