"""Complete runs: their points, progress and verdict."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from loadgen.config.options import read_config
from loadgen.config.spec import Config
from loadgen.drive.attack import Progress
from loadgen.drive.preflight import PreflightError
from loadgen.results.records import INTERRUPTED, Knee, Point
from loadgen.run.session import Finished, Session, label, verdict
from loadgen.run.view import View
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.fakes.admin_port import WATTS, FakeAdmin
from tests.loadgen.samples import point
from tests.timing import PATIENCE_SECONDS

NOWHERE = "http://127.0.0.1:1"


class RecordingView(View):
    """Records the progress of a run; ``at`` is called as each point starts."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.session: Session | None = None
        self.stop_at: str | None = None

    def note(self, text: str) -> None:
        self.lines.append(f"note: {text}")

    def point_started(self, label: str, progress: Progress) -> None:
        del progress
        self.lines.append(f"started: {label}")
        if label == self.stop_at and self.session is not None:
            self.session.interrupt()

    def point_ended(self, point: Point) -> None:
        self.lines.append(f"ended: {point.concurrency}")


@pytest.fixture
async def server() -> AsyncIterator[TruthServer]:
    async with TruthServer(Truth(0.01, 0.002, 3)) as running:
        yield running


def sweep(url: str, *argv: str, admin: str = NOWHERE) -> Config:
    return read_config(
        "sweep",
        ["--concurrency", "1,2", "--requests", "6", "--cool-down", "0s", "--warmup", "none",
         "--url", url, "--admin-url", admin, *argv],
    )  # fmt: skip


async def test_points_are_measured_in_order_and_saved_as_they_end(server: TruthServer) -> None:
    told, kept = RecordingView(), list[Finished]()
    session = Session(sweep(server.url, "--slo", "60s"), told, save=kept.append)
    found = await session.run()
    assert told.lines[0].startswith("note: energy not measured")
    assert told.lines[1:] == ["started: 1 at once", "ended: 1", "started: 2 at once", "ended: 2"]
    assert (found.run.verdict, found.run.spec["model"]) == ("pass", "truth")
    assert [r.point for r in found.records] == [0] * 6 + [1] * 6
    # After all but the last one: the last is the run itself.
    assert [(len(f.run.points), f.run.verdict) for f in kept] == [(1, "interrupted")]


async def test_energy_comes_from_the_admin_port_on_the_proxys_clock(server: TruthServer) -> None:
    async with FakeAdmin(joules_each=2.0) as admin:
        found = await Session(sweep(server.url, admin=admin.url), RecordingView()).run()
    for one in found.run.points:
        assert one.watts == pytest.approx(WATTS, rel=1e-6)
    assert all(record.joules == 2.0 for record in found.records)
    assert found.run.notes == []


async def test_a_signal_ends_the_point_and_the_run(server: TruthServer) -> None:
    told = RecordingView()
    told.session = session = Session(sweep(server.url, "--requests", "100"), told)
    told.stop_at = "2 at once"
    found = await session.run()
    assert found.run.verdict == "interrupted"
    assert told.lines[-1] == "started: 2 at once"
    assert [p.concurrency for p in found.run.points] == [1]
    assert not any(INTERRUPTED in note for note in found.run.points[0].notes)


async def test_points_measured_before_are_not_measured_again(server: TruthServer) -> None:
    told = RecordingView()
    session = Session(sweep(server.url), told, points=[point(1)])
    found = await session.run()
    assert [line for line in told.lines if line.startswith("started")] == ["started: 2 at once"]
    assert [p.concurrency for p in found.run.points] == [1, 2]


async def test_a_server_that_dies_between_points_is_failures_not_the_end() -> None:
    server = await TruthServer(Truth(0.01, 0.002, 3)).__aenter__()
    dying: list[asyncio.Future[None]] = []

    class Kills(RecordingView):
        def point_ended(self, point: Point) -> None:
            super().point_ended(point)
            if not dying:
                dying.append(asyncio.ensure_future(server.__aexit__()))

    found = await Session(sweep(server.url, "--cool-down", "0.3s"), Kills()).run()
    assert [p.failed for p in found.run.points] == [0, 6]
    assert all("cannot connect" in (r.error or "") for r in found.records[6:])


async def test_a_signal_ends_a_pause(server: TruthServer) -> None:
    class Stops(RecordingView):
        def point_ended(self, point: Point) -> None:
            super().point_ended(point)
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

    found = await asyncio.wait_for(
        Session(sweep(server.url, "--cool-down", "600s"), Stops()).run(), PATIENCE_SECONDS
    )
    assert (found.run.verdict, len(found.run.points)) == ("interrupted", 1)


async def test_nothing_starts_without_a_server() -> None:
    told = RecordingView()
    with pytest.raises(PreflightError, match="no server"):
        await Session(sweep(NOWHERE), told).run()
    assert told.lines == []


def knee(level: float | None) -> Knee:
    return Knee(kind="rate", level=level, low=None, high=None, reason="", probes=1, seconds=1.0)


def test_the_verdict() -> None:
    judged, plain = sweep(NOWHERE, "--slo", "1s").spec, sweep(NOWHERE).spec
    good, missed = point(1), point(1, slo_met=False)
    bound = point(1, slo_met=False, generator_bound=True)
    assert verdict(judged, [missed, good], None, interrupted=False) == "pass"
    assert verdict(judged, [missed], None, interrupted=False) == "fail"
    assert verdict(judged, [good], None, interrupted=True) == "interrupted"
    assert verdict(judged, [bound], None, interrupted=False) == "generator-bound"
    assert verdict(judged, [missed, bound], None, interrupted=False) == "generator-bound"
    assert verdict(plain, [point(1, slo_met=None)], None, interrupted=False) == "pass"
    assert verdict(plain, [point(1, slo_met=None, failed=1)], None, interrupted=False) == "fail"
    assert verdict(judged, [missed], knee(None), interrupted=False) == "fail"


def test_points_have_labels() -> None:
    assert label(sweep(NOWHERE).spec, 4.0) == "4 at once"
    assert label(read_config("run", ["--rate", "2.5"]).spec, 2.5) == "2.5 req/s"
