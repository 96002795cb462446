"""The search in virtual time, against servers whose knee is known."""

import statistics

import numpy as np
import pytest

from loadgen.config.slo import parse_slo
from loadgen.results.records import Knee
from loadgen.search.strategy import Limits, Probe, Search
from tests.fakes.known_knees import NEW, TUNED, knee_of, search_case, waiting_share
from tests.fakes.virtual_servers import QueueServer, VirtualClient, long_run_share
from tests.loadgen.samples import record

SLO = parse_slo("p95:ttft=200ms")
TRUTH_RATE = 40.2
"""Of 32 slots and 0.68 s of service under Poisson arrivals (M/D/32): simulated over hours."""
S = 10**9


def search(*, whole: bool = False, budget: float = 80.0, low: float = 1, high: float = 100_000) -> Search:
    return Search(Limits(low, high, whole, budget), SLO)


def find(server: QueueServer, one: Search, seed: int = 0) -> Knee:
    return VirtualClient(server, seed).find(one)[0]


def begin(one: Search) -> Probe:
    probe = one.next()
    assert isinstance(probe, Probe)
    return probe


def good(count: int, every_s: float) -> list:  # type: ignore[type-arg]
    return [record(i, scheduled=int(i * every_s * S)) for i in range(count)]


def test_the_highest_poisson_rate() -> None:
    found = [find(QueueServer(), search(), seed) for seed in range(12)]
    errors = [(knee.level or 0) / TRUTH_RATE - 1 for knee in found]
    assert abs(statistics.median(errors)) < 0.03
    assert statistics.pstdev(errors) < 0.07
    assert all(knee.seconds <= 90 for knee in found)
    covered = sum((knee.low or 0) <= TRUTH_RATE <= (knee.high or 0) for knee in found)
    assert covered >= 10


def test_intervals_hold_the_truth_on_servers_of_other_kinds() -> None:
    """A few seeds of what ``tests/benchmarks/test_search.py`` does with a hundred."""
    cases = [case for case in TUNED if "M/M/1" in case.name or "lognormal" in case.name]
    found = [(case.truth, search_case(case, seed, 80.0)) for case in cases for seed in range(4)]
    held = sum((one.knee.low or 0) <= truth <= (one.knee.high or 0) for truth, one in found)
    assert held >= 0.85 * len(found)
    best = [one.best / truth for truth, one in found if one.best is not None]
    assert len(best) >= 0.8 * len(found)
    assert max(best) < 1.02


def test_a_limit_on_e2e_that_long_responses_exceed_has_an_interval_that_holds_the_truth() -> None:
    """The ramp must not take the requests that are in service for a queue."""
    case = next(case for case in NEW if case.name == "M/M/48, p99 E2E")
    found = [search_case(case, seed, 80.0).knee for seed in range(8)]
    assert sum((knee.low or 0) <= case.truth <= (knee.high or 0) for knee in found) >= 7
    assert statistics.median((knee.level or 0) / case.truth for knee in found) == pytest.approx(1, abs=0.15)


def test_the_server_models_agree_with_erlangs_formula() -> None:
    slo = parse_slo("p95:ttft=100ms")
    rate = knee_of(4, 20, 0.05, 0.1)
    assert waiting_share(4, 20, rate, 0.1) == pytest.approx(0.05, rel=1e-6)
    found = long_run_share(QueueServer(4, 0.05, 0.0, 1), rate, 100_000, slo)
    assert found == pytest.approx(0.05, rel=0.15)


def test_the_best_point_is_confirmed_twice_and_never_a_ramp_probe() -> None:
    for seed in range(6):
        client = VirtualClient(QueueServer(), seed)
        knee, tallies = client.find(search())
        first, second = (tallies[index] for index in knee.confirmed)
        assert first.level == second.level <= (knee.level or 0)
        assert first.certain(SLO)
        assert not second.misses(SLO)
        assert not first.short
        assert not second.short
        assert min(first.expected or 0, second.expected or 0) >= 4 * first.level


def test_a_server_that_stops_now_and_then_has_no_confirmed_load_above_its_knee() -> None:
    made = (QueueServer(8, 0.2, 0.05, 0, stall_every_s=6, stall_s=0.5) for _ in range(4))
    for seed, server in enumerate(made):
        client = VirtualClient(server, seed)
        knee, tallies = client.find(search())
        assert all(tallies[index].level <= (knee.high or 0) for index in knee.confirmed)


def test_a_miss_of_the_ramp_that_a_longer_probe_refutes_does_not_end_the_ramp() -> None:
    one = search(low=8, budget=200)
    one.done(begin(one), 2.0, good(20, 0.1), 2.0)
    cold = [record(i, scheduled=S + i * S // 50, first=4 * S) for i in range(40)]
    one.done(begin(one), 2.0, cold, 2.0)
    for _ in range(12):
        probe = begin(one)
        if probe.level > 20:
            break
        one.done(probe, probe.max_s, good(int(probe.max_s * probe.level), 1 / probe.level), probe.max_s)
    assert probe.level > 20


def test_confirmation_steps_down_after_a_miss_and_counts_points_that_were_not_used() -> None:
    one = search(low=8, high=8)
    one.wasted(1.0)
    one.done(begin(one), 2.0, good(20, 0.1), 2.0)
    first = begin(one)
    assert (first.kind, first.level) == ("confirm", 8)
    assert first.max_s >= 4
    one.done(first, first.max_s, good(300, 0.05), first.max_s)
    second = begin(one)
    assert (second.kind, second.level) == ("confirm", 8)
    one.done(second, second.max_s, good(150, 0.05), second.max_s)
    end = one.next()
    assert isinstance(end, Knee)
    assert end.confirmed == (2, 3)
    assert "even 8 is within" in end.reason


def test_growing_latencies_confirm_nothing() -> None:
    one = search(low=8, high=8)
    one.done(begin(one), 2.0, good(20, 0.1), 2.0)
    first = begin(one)
    assert first.kind == "confirm"
    growing = [record(i, scheduled=i * S // 20, first=i * S // 20 + i * S // 2000) for i in range(300)]
    one.done(first, first.max_s, growing, first.max_s)
    assert one.stopped("interrupted").confirmed == ()


def test_the_highest_concurrency() -> None:
    client = VirtualClient(QueueServer())
    knee, tallies = client.find(search(whole=True))
    assert knee.level == 33
    assert knee.kind == "concurrency"
    assert all(tally.level == int(tally.level) for tally in tallies)
    assert {tallies[index].level for index in knee.confirmed} <= set(np.arange(20.0, 34.0))


def test_a_larger_and_a_smaller_server() -> None:
    big = find(QueueServer(slots=96, service_s=0.3), search(), seed=3)
    assert big.level is not None
    assert 0.88 < big.level * 0.3 / 96 < 1.02  # many slots: the knee is close to capacity
    small = find(QueueServer(slots=1, service_s=0.01, first_s=0.001), search(), seed=3)
    assert small.level is not None
    assert small.low is not None
    assert small.high is not None
    assert small.low < 93 < small.high  # M/D/1 with a wait of at most 199 ms


def test_a_knee_that_is_not_in_the_range_is_not_made_up() -> None:
    over = find(QueueServer(), search(high=16))
    assert (over.level, over.low) == (None, 16)
    assert "even 16 is within" in over.reason
    under = find(QueueServer(first_s=0.5), search(low=4))
    assert (under.level, under.high) == (None, 4)
    short = find(QueueServer(), search(budget=6))
    assert short.level is None
    assert short.low is not None
    assert "budget" in short.reason


def test_silence_is_asked_again_for_longer() -> None:
    one = search()
    first = one.next()
    assert isinstance(first, Probe)
    one.done(first, first.max_s, [], first.max_s)
    again = one.next()
    assert isinstance(again, Probe)
    assert again.level == first.level
    assert again.max_s > first.max_s


def test_failures_are_outside() -> None:
    one = search()
    probe = one.next()
    assert isinstance(probe, Probe)
    failed = [record(i, scheduled=10**9 + i * 10**7, error="HTTP 500") for i in range(80)]
    assert one.stop_now(probe, probe.min_s, failed)
    assert not one.stop_now(probe, probe.min_s / 2, failed)
    one.done(probe, 2.0, failed, 2.0)
    end = one.next()
    assert isinstance(end, Knee)
    assert "even 1 is outside" in end.reason


def test_one_slow_request_among_few_ends_nothing() -> None:
    one = search()
    probe = one.next()
    assert isinstance(probe, Probe)
    cold = [record(1, scheduled=10**9, first=2 * 10**9), record(2, scheduled=2 * 10**9)]
    one.done(probe, 3.0, cold, 3.0)
    up = one.next()
    assert isinstance(up, Probe)
    assert (up.level, up.kind) == (2, "ramp")


def test_a_queue_is_let_go_before_the_next_probe_and_wasted_time_counts() -> None:
    one = search(low=8)
    probe = one.next()
    assert isinstance(probe, Probe)
    assert probe.settle_to is None
    one.wasted(3.0)
    assert one.spent_s == 3.0
    fine = [record(i, scheduled=10**9 + i * 10**7, end=10**9 + i * 10**7 + 2 * 10**8) for i in range(80)]
    one.done(probe, 2.0, fine, 2.0)
    up = one.next()
    assert isinstance(up, Probe)
    assert (up.level, up.settle_to) == (16, None)
    late = [record(i, scheduled=10**9 + i * 10**7, first=3 * 10**9) for i in range(80)]
    one.done(up, 2.0, late, 2.0)
    down = one.next()
    assert isinstance(down, Probe)
    assert down.level < 16
    assert down.settle_to == int(down.level * (0.2 + 0.2 / 4))  # in service, and the usual queue
    assert one.stopped("interrupted").reason == "interrupted"


def test_the_lowest_load_does_not_pass_on_a_handful_of_requests_that_are_all_outside() -> None:
    found = [find(QueueServer(first_s=0.5), search(), seed) for seed in range(20)]
    assert {(knee.level, knee.low) for knee in found} == {(None, None)}
    assert all("even 1 is outside" in knee.reason for knee in found)
