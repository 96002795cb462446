"""Virtual time: the same pacers, metrics and files, and no server."""

import itertools
import os
import signal
from pathlib import Path

import pytest

from loadgen.cli import main
from loadgen.config.options import read_config
from loadgen.drive.attack import Progress
from loadgen.drive.pacer import OpenLoop, schedule_ns
from loadgen.drive.planning import make_workload, plan
from loadgen.results.records import INTERRUPTED, Point
from loadgen.results.run_directory import load
from loadgen.run.session import Finished, Session
from loadgen.run.view import View
from loadgen.virtual.attack import VirtualAttack
from loadgen.virtual.run import simulate
from loadgen.virtual.simulator import Simulator
from loadgen.workload.lengths import Lengths

PROFILE = "h100-llama-3.1-8b"


def planned(*argv: str, view: View | None = None) -> Finished:
    """Simulate a run without its files: drawing them takes most of the time."""
    config = read_config("sweep", ["--simulate", PROFILE, "--duration", "3s", *argv])
    return simulate(Session(config, view or View()), PROFILE)


def test_an_open_loop_keeps_its_schedule_and_is_marked_as_simulated() -> None:
    argv = ["--rate", "4,16", "--seed", "0", "--warmup", "none"]
    found, again = planned(*argv), planned(*argv)
    assert (found.run.points, found.records) == (again.run.points, again.records)
    _, pacer = plan(read_config("sweep", [*argv, "--duration", "3s"]).spec, 16)
    assert isinstance(pacer, OpenLoop)
    assert [r.scheduled_ns for r in found.records if r.point == 1] == schedule_ns(pacer)
    assert "simulated" in (found.run.points[0].energy_source or "")
    assert "nothing was measured" in found.run.notes[0]
    for point in found.run.points:
        assert point.failed == 0
        assert sum(v or 0 for v in point.parts_joules.values()) == pytest.approx(point.joules, rel=1e-6)
        assert point.late_seconds.max == pytest.approx(0, abs=1e-8)


def test_every_pacer_keeps_its_schedule(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = ((0, 40, 4), (500, 50, 5), (750, 60, 6))
    shape = '{{"timestamp": {}, "input_length": {}, "output_length": {}}}'
    trace.write_text("\n".join(shape.format(*row) for row in rows))
    for arrivals in ("constant", "gamma:2", "ramp:2..20", "sine:0.5,2", f"trace:{trace}"):
        argv = ["--rate", "8", "--seed", "3", "--arrivals", arrivals, "--duration", "2s"]
        records = planned(*argv).records
        _, pacer = plan(read_config("sweep", argv).spec, 8)
        assert isinstance(pacer, OpenLoop)
        assert [r.scheduled_ns for r in records] == schedule_ns(pacer), arrivals
        assert all(r.sent_ns == r.scheduled_ns and r.ok for r in records)
    assert [(r.prompt_tokens, r.output_tokens) for r in records] == [(40, 4), (50, 5), (60, 6)]


def test_a_request_has_the_lengths_that_a_server_would_see() -> None:
    argv = ["--rate", "20", "--input", "uniform:5..90", "--output", "uniform:2..40", "--duration", "1s"]
    drawn: list[tuple[int, int]] = []

    class Watched(Lengths):
        def of(self, index: int, rng: object) -> tuple[int, int]:
            drawn.append(Lengths.of(self, index, rng))  # type: ignore[arg-type]
            return drawn[-1]

    spec = read_config("sweep", argv).spec
    lengths, _ = plan(spec, 20)
    work = make_workload(spec, "m", Watched(lengths.prompt, lengths.answer), 0, ())
    found = [(r.prompt_tokens, r.output_tokens) for r in planned(*argv).records]
    for index in range(len(found)):
        work.body(index)
    assert found == drawn
    assert len(set(found)) > 5


def test_a_closed_loop_keeps_its_level() -> None:
    few, many = planned("--concurrency", "1,8").run.points
    assert (few.max_in_flight, many.max_in_flight) == (1, 8)
    assert many.tokens_per_joule is not None
    assert few.tokens_per_joule is not None
    assert many.tokens_per_joule > 2 * few.tokens_per_joule


def test_a_cap_holds_requests_back() -> None:
    run = planned("--rate", "30", "--max-in-flight", "2", "--warmup", "none").run
    assert run.verdict == "fail"  # a queue that only grows is no operating point
    (point,) = run.points
    assert point.late_seconds.max is not None
    assert point.late_seconds.max > 1.0
    assert any("--max-in-flight delayed" in note for note in point.notes)


class Interrupts(View):
    """Sends SIGINT when the ``after``-th point begins, or in the middle of it."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.ended: list[Point] = []

    def watch(self, label: str, progress: Progress) -> None:
        del label, progress
        if len(self.ended) == self.after:
            os.kill(os.getpid(), signal.SIGINT)

    def point_ended(self, point: Point) -> None:
        self.ended.append(point)


def test_an_interrupt_keeps_the_records_so_far() -> None:
    before = signal.getsignal(signal.SIGINT)
    found = planned("--concurrency", "1,2,4", view=Interrupts(1))
    assert signal.getsignal(signal.SIGINT) is before
    whole, cut = found.run.points
    assert found.run.verdict == "interrupted"
    assert INTERRUPTED in cut.notes
    assert INTERRUPTED not in whole.notes
    assert {r.point for r in found.records} == {0}


def test_requests_in_flight_are_recorded_as_interrupted() -> None:
    spec = read_config("sweep", ["--concurrency", "4", "--simulate", PROFILE]).spec
    lengths, pacer = plan(spec, 4)
    asked = itertools.count()
    with Simulator(PROFILE) as simulator:
        attack = VirtualAttack(simulator, pacer, lengths, spec, 0, lambda: next(asked) > 7)
        end_ns = attack.run()
    cut = [r for r in attack.records if r.error == "interrupted"]
    assert 1 <= len(cut) <= 4
    assert all(r.end_ns is None for r in cut)
    assert attack.progress.sent == len(attack.records)
    assert end_ns >= max(r.scheduled_ns for r in cut)


def test_a_resumed_sweep_measures_the_missing_points() -> None:
    done = planned("--concurrency", "1,2").run.points
    config = read_config("sweep", ["--simulate", PROFILE, "--duration", "3s", "--concurrency", "1,2"])
    session = Session(config, View(), points=list(done[:1]))
    assert simulate(session, PROFILE).run.points == done


def test_a_simulated_run_is_saved_and_unsupported_options_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--quiet", "--out", str(tmp_path), "--rate", "4", "--duration", "1s"]
    assert main(["sweep", *common, "--simulate", PROFILE]) == 0
    argv = ["sweep", *common, "--force", "--simulate"]
    assert load(tmp_path)[0].verdict == "pass"
    assert main([*argv, "h100-lama-3.1-8b"]) == 2
    assert main([*argv, PROFILE, "--turns", "3"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"profile h100-lama-3.1-8b: no such profile; did you mean {PROFILE}" in first
    assert "--turns is not supported in virtual time" in second


def test_requests_without_an_end_after_the_drain_time_are_recorded_as_failed() -> None:
    argv = ("--rate", "20", "--duration", "1s", "--output", "4000", "--drain", "0.5s", "--warmup", "none")
    found = planned(*argv)
    (point,) = found.run.points
    assert point.failed == point.requests == len(found.records)
    assert {record.error for record in found.records} == {"not ended 0.5 s after the last"}
    assert all(record.end_ns is None for record in found.records)
    assert any("failed, most often: not ended" in note for note in point.notes)
