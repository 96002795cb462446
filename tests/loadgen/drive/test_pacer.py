from hypothesis import given
from hypothesis import strategies as st

from loadgen.drive.pacer import (
    HOLD,
    STOP,
    Capped,
    ClosedLoop,
    Decision,
    OpenLoop,
    Send,
    duration_ns,
    schedule_ns,
)
from loadgen.workload.arrivals import Constant, Renewal


def due(decision: Decision) -> int:
    assert isinstance(decision, Send)
    return decision.deadline_ns


def test_an_open_loop_ignores_requests_in_flight() -> None:
    pacer = OpenLoop(Constant(10.0), duration_ns(1.0))
    assert due(pacer.decide(0, 3, 0)) == due(pacer.decide(10**9, 3, 10**6)) == 300_000_000
    assert pacer.decide(0, 10, 0) == STOP


@given(st.integers(0, 99), st.integers(1, 7))
def test_the_arrivals_of_all_workers_are_those_of_one(seed: int, workers: int) -> None:
    whole = schedule_ns(OpenLoop(Renewal(50.0, 1.0, seed), duration_ns(2.0)))
    parts = [
        schedule_ns(OpenLoop(Renewal(50.0, 1.0, seed), duration_ns(2.0), None, worker, workers))
        for worker in range(workers)
    ]
    assert sorted(t for part in parts for t in part) == whole


@given(st.integers(0, 40), st.integers(1, 5))
def test_requests_are_split_over_workers_without_loss(requests: int, workers: int) -> None:
    parts = [
        schedule_ns(OpenLoop(Constant(9.0), None, requests, worker, workers)) for worker in range(workers)
    ]
    assert sum(map(len, parts)) == requests


def test_closed_loop() -> None:
    pacer = ClosedLoop(2, duration_ns(1.0), 5)
    assert due(pacer.decide(7, 0, 0)) == 7
    assert pacer.decide(7, 2, 2) == HOLD
    assert pacer.decide(7, 5, 0) == STOP
    assert pacer.decide(10**9, 2, 0) == STOP


def test_cap_holds_back_and_counts_without_moving_the_schedule() -> None:
    pacer = Capped(OpenLoop(Constant(10.0), duration_ns(1.0)), 2)
    assert pacer.decide(0, 2, 2) == HOLD
    assert pacer.bound == 0
    assert pacer.decide(250_000_000, 2, 2) == HOLD
    assert pacer.bound == 1
    assert due(pacer.decide(400_000_000, 2, 1)) == 200_000_000
    assert pacer.decide(0, 10, 5) == STOP
