"""Complete searches on real sockets; the decisions themselves are tested in virtual time."""

from pathlib import Path

import pytest

from loadgen.config.spec import Config, Spec
from loadgen.drive.attack import Progress
from loadgen.run.session import Finished, Session
from loadgen.run.view import View
from loadgen.search.runner import search_knee
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.fakes.admin_port import WATTS, FakeAdmin

NOWHERE = "http://127.0.0.1:1"


class Watching(View):
    """Records the progress of a search; ``stop_at`` interrupts when a probe of that label begins."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.labels: list[str] = []
        self.session: Session | None = None
        self.stop_at: int | None = None

    def line(self, text: str) -> None:
        self.lines.append(text)

    def watch(self, label: str, progress: Progress) -> None:
        assert progress.sent == 0
        self.labels.append(label)
        if self.session is not None and len(self.labels) == self.stop_at:
            self.session.interrupt()


async def searched(view: Watching, admin: str = NOWHERE, **spec: object) -> Finished:
    async with TruthServer(Truth(0.05, 0.1, 3, slots=4)) as server:
        fields = {
            "command": "sweep", "mode": "concurrency", "levels": (4.0, 64.0), "slo": "p80:ttft=400ms",
            "url": server.url, "admin_url": admin, "search": True, "budget_seconds": 20.0,
        }  # fmt: skip
        view.session = Session(Config(spec=Spec(**(fields | spec)).check(), out=Path()), view)  # type: ignore[arg-type]
        return await view.session.run(search_knee)


async def test_the_concurrency_of_a_small_server() -> None:
    view = Watching()
    async with FakeAdmin(joules_each=1.0) as admin:
        finished = await searched(view, admin.url)
    if any("not counted" in line for line in view.lines):
        pytest.skip("the machine was too busy to drive the load on time: " + "; ".join(view.lines))
    run, records = finished.run, finished.records
    assert run.knee is not None
    assert run.knee.level is not None
    # Ten at once: four begin at once, four after 0.25 s, and two (the fifth that may) after 0.5 s.
    assert 8 <= run.knee.level <= 12, view.lines
    assert run.verdict == "pass"
    assert len(run.points) == len(view.labels)
    assert {r.point for r in records} == set(range(len(run.points)))
    assert run.best is not None
    assert run.best in run.knee.confirmed
    assert run.points[run.best].duration_seconds >= 4
    assert run.points[run.best].slo_confidence == "pass"
    assert (run.points[run.best].concurrency or 0) <= run.knee.level
    known = [point.watts for point in run.points if point.watts is not None]
    assert known
    assert all(abs(watts / WATTS - 1) < 1e-6 for watts in known)


async def test_an_interrupted_search_keeps_its_probes() -> None:
    view = Watching()
    view.stop_at = 2
    finished = await searched(view, mode="rate", levels=(8.0, 1000.0))
    assert finished.run.verdict == "interrupted"
    assert finished.run.knee is not None
    assert finished.run.knee.level is None
    assert "interrupted" in finished.run.knee.reason
    assert len(finished.run.points) == 2
    assert view.labels[0] == "ramp 8 req/s"
