"""A search in virtual time: the same search, one simulator, virtual seconds."""

import pytest

from loadgen.config.options import read_config
from loadgen.results.records import Knee
from loadgen.run.session import Finished, Session
from loadgen.run.view import View
from loadgen.virtual.run import simulate

PROFILE = "h100-llama-3.1-8b"


class Lines(View):
    def __init__(self, most: int = 100) -> None:
        self.said: list[str] = []
        self.most = most
        self.session: Session | None = None

    def line(self, text: str) -> None:
        self.said.append(text)
        if len(self.said) == self.most and self.session is not None:
            self.session.interrupt()


def searched(*argv: str, view: Lines) -> tuple[Finished, Knee]:
    common = ["--search", "--simulate", PROFILE, "--input", "300", "--output", "12"]
    view.session = session = Session(read_config("sweep", [*common, *argv]), view)
    found = simulate(session, PROFILE)
    assert found.run.knee is not None
    return found, found.run.knee


def test_a_knee_within_the_range_that_a_longer_run_confirms() -> None:
    view = Lines()
    found, knee = searched("--rate", "20..400", "--slo", "p95:ttft=100ms", "--budget", "20s", view=view)
    assert found.run.verdict == "pass"
    assert knee.level is not None
    assert knee.low is not None
    assert knee.high is not None
    assert knee.low < knee.level < knee.high
    assert knee.seconds <= 21
    assert len(view.said) == knee.probes == len(found.run.points)
    assert all("simulated" in (point.energy_source or "") for point in found.run.points)
    assert all(record.end_ns is not None for record in found.records)
    below, above = (_share(level) for level in (0.7 * knee.level, 1.5 * knee.level))
    assert below > 0.95 > above


def _share(rate: float) -> float:
    argv = ["--simulate", PROFILE, "--input", "300", "--output", "12", "--duration", "5s"]
    records = simulate(Session(read_config("sweep", [*argv, "--rate", f"{rate:g}"]), View()), PROFILE).records
    return sum((r.first_ns or 0) - r.scheduled_ns <= 100_000_000 for r in records) / len(records)


def test_the_same_seed_finds_the_same() -> None:
    argv = ("--concurrency", "1..64", "--slo", "p95:ttft=100ms", "--budget", "8s", "--seed", "0")
    one, two = searched(*argv, view=Lines())[0], searched(*argv, view=Lines())[0]
    assert (one.run.knee, one.run.points, one.records) == (two.run.knee, two.run.points, two.records)


def test_an_interrupted_search_keeps_its_probes() -> None:
    found, knee = searched("--rate", "1..400", "--slo", "p95:ttft=100ms", view=Lines(most=3))
    assert found.run.verdict == "interrupted"
    assert knee.level is None
    assert len(found.run.points) >= 3
    assert {r.error for r in found.records} <= {None, "interrupted"}


@pytest.mark.parametrize("level", ["1..2", "300..400"])
def test_a_knee_outside_the_range_is_reported_as_not_found(level: str) -> None:
    argv = ("--rate", level, "--slo", "p95:ttft=100ms", "--budget", "6s")
    knee = searched(*argv, "--output", "60", view=Lines())[1]
    assert knee.level is None
