import random

import msgspec
import pytest

from loadgen.report.compare import as_text, compare
from loadgen.results.records import Knee, Point, Record, Run
from tests.loadgen.samples import point, record

S = 1_000_000_000


def made(point_: Point, records: list[Record], **spec: object) -> tuple[Run, list[Record]]:
    run = Run(
        run_id="r", spec={"mode": "concurrency", **spec}, seed=0, versions={}, verdict="pass", best=0,
        points=[point_],
    )  # fmt: skip
    return run, records


def answers(first_s: float, joules: float, seed: int, count: int = 400) -> list[Record]:
    rng = random.Random(seed)
    return [
        msgspec.structs.replace(
            record(i, scheduled=i * 5_000_000, first=i * 5_000_000 + round(rng.gauss(first_s, 0.01) * S)),
            joules=rng.gauss(joules, 0.2),
        )
        for i in range(count)
    ]


def measured(**changes: object) -> Point:
    known: dict[str, object] = {
        "watts": 300.0, "joules": 600.0, "joules_per_request": 6.0, "energy_source": "nvml",
        "parts_joules": {"static": 500.0, "decode": 100.0},
    }  # fmt: skip
    return point(8, **(known | changes))


def test_a_real_change_is_marked_and_noise_is_not() -> None:
    a = made(measured(), answers(0.10, 6.0, 1))
    b = made(measured(), answers(0.12, 6.0, 2))
    (load,) = compare(a, b).loads
    changes = {change.name: change for change in load.changes}
    assert changes["TTFT p50"].significant
    assert changes["TTFT p50"].relative == pytest.approx(0.2, abs=0.03)
    assert not changes["J/request"].significant
    assert changes["J/request"].low is not None
    assert changes["W"].low is None
    text = as_text(compare(a, b))
    assert "TTFT p50" in text
    assert text == as_text(compare(a, b))


def test_the_same_process_is_seldom_called_changed() -> None:
    called = 0
    for seed in range(10):
        a, b = (made(measured(), answers(0.1, 6.0, seed * 2 + side)) for side in (0, 1))
        called += sum(change.significant for change in compare(a, b).loads[0].changes)
    assert called <= 3  # of 10 x 6 looked at, at 99 % each


def test_joules_are_compared_by_part() -> None:
    a = made(measured(), answers(0.1, 6.0, 1))
    more = msgspec.structs.replace(measured(), joules=900.0, joules_per_request=9.0)
    b = made(
        msgspec.structs.replace(more, parts_joules={"static": 500.0, "decode": 400.0}), answers(0.1, 9, 2)
    )
    (load,) = compare(a, b).loads
    assert load.parts == {"static": (5.0, 5.0), "decode": (1.0, 4.0)}
    text = as_text(compare(a, b))
    assert "+3 J in total" in text
    assert text.index("decode  ") < text.index("static  ")  # the largest change first


def test_too_few_requests_have_no_interval() -> None:
    a, b = (made(point(8), answers(0.1, 6.0, side, count=30)) for side in (1, 2))
    change = next(c for c in compare(a, b).loads[0].changes if c.name == "TTFT p50")
    assert (change.low, change.significant) == (None, False)
    assert not any(c.name == "TTFT p99" for c in compare(a, b).loads[0].changes)


def test_runs_that_cannot_be_compared_are_rejected() -> None:
    a, other = made(point(8), []), made(point(16), [])
    with pytest.raises(ValueError, match="share no load"):
        compare(a, other)
    rates = made(point(8), [])[0]
    with pytest.raises(ValueError, match="rates"):
        compare(a, (msgspec.structs.replace(rates, spec={"mode": "rate"}), []))
    notes = compare(a, made(point(8), [], input="512")).notes
    assert notes == ["input differs: None and 512"]
    sources = compare(made(measured(), []), made(measured(energy_source="zeus"), []))
    assert "different sources: nvml, zeus" in sources.notes[0]


def test_knees() -> None:
    def searched(level: float) -> tuple[Run, list[Record]]:
        knee = Knee(
            kind="rate", level=level, low=level - 2, high=level + 2, reason="", probes=3, seconds=80.0
        )
        return msgspec.structs.replace(made(point(int(level)), [])[0], knee=knee), []

    assert "no difference shown" in compare(searched(40), searched(41)).notes[0]
    assert "are apart" in compare(searched(40), searched(50)).notes[0]
