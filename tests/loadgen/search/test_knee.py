import msgspec
import numpy as np
import pytest

from loadgen.config.slo import parse_slo
from loadgen.search.capacity import Capacity
from loadgen.search.knee import (
    Estimate,
    Tally,
    estimate,
    estimate_knee,
    hopeless,
    tally,
    unanswered,
    with_queue,
)
from tests.loadgen.samples import record

S = 1_000_000_000
SLO = parse_slo("p90:ttft=100ms")


def seen(level: float, share: float, count: int = 2000, expected: float | None = None) -> Tally:
    rng = np.random.default_rng(int(level * 100))
    outside = (rng.random(count) < share).astype(np.float64)
    return Tally(level, (outside,), 0.01, count, expected)


def test_what_is_known_of_requests_under_way() -> None:
    records = [
        record(0, scheduled=0, first=S // 20, end=S),
        record(1, scheduled=S, first=2 * S, end=2 * S),
        record(2, scheduled=S, error="HTTP 503"),
    ]
    fresh = [record(3, scheduled=2 * S), record(4, scheduled=3 * S - 1000)]
    waiting = [msgspec.structs.replace(r, first_ns=None, end_ns=None) for r in fresh]
    found = tally(5.0, 0.5, [*records, *waiting], SLO, 3.0)
    # The first is warm-up, the last too fresh to say.
    assert found.outside[0].tolist() == [1, 1, 1]
    assert found.arrived == 4
    assert found.service_s == 1.0
    assert found.misses(SLO)
    assert found.text == "0.0% of 3 within"
    assert Tally(1, (), None, 0).text == "no answer yet"


def test_fast_requests_of_the_last_seconds_are_left_out_of_a_longer_probe() -> None:
    """Of those that came less than the limit ago, only the fast ones are known."""
    slo = parse_slo("p90:e2e=2s")
    records = [record(0, scheduled=0, end=S // 2), record(1, scheduled=2 * S, end=2 * S + S // 2)]
    assert tally(5.0, 0.0, records, slo, 3.0).outside[0].tolist() == [0]
    assert tally(5.0, 0.0, records, slo, 3.0, short=True).outside[0].tolist() == [0, 0]


def test_the_interval_of_a_limit_on_e2e_reaches_down_to_a_load_that_held() -> None:
    tallies = [seen(40, 0.0), seen(60, 0.5)]
    found = Estimate(50.0, 55.0, 58.0, 20.0)
    assert found.low_end(tallies, parse_slo("p90:e2e=2s")) == 40
    assert found.low_end(tallies, SLO) == 50
    assert found.low_end(tallies[1:], parse_slo("p90:e2e=2s")) == 50


def estimated(tallies: list[Tally], service_s: float = 0.01) -> Estimate:
    return estimate(tallies, 0, SLO[0], service_s)


def test_the_crossing_of_a_known_curve() -> None:
    def curve(level: float) -> float:
        return float(1 / (1 + np.exp(-(np.log(0.1 / 0.9) + 20 * np.log(level / 50)))))

    found = estimated([seen(level, curve(level)) for level in (30, 45, 48, 50, 52, 60)])
    assert found.low < 50 < found.high
    assert found.middle == pytest.approx(50, rel=0.03)
    assert found.slope == pytest.approx(20, rel=0.3)
    assert (found.high - found.low) / found.middle < 0.2


def test_more_arrivals_than_asked_for_move_the_knee_up() -> None:
    def knee(expected: float) -> float:
        shares = ((50, 0.1), (60, 0.6), (40, 0.01))
        return estimated([seen(level, share, expected=expected) for level, share in shares]).middle

    assert knee(1900.0) / knee(2000.0) == pytest.approx(2000 / 1900, rel=1e-3)


def test_each_long_probe_counts_at_the_rate_that_came_to_it() -> None:
    shares = [seen(level, share, expected=2000.0) for level, share in ((40, 0.01), (50, 0.1), (60, 0.6))]
    exact = estimated(shares).middle
    asked = [
        Tally(
            50.0, t.outside, 0.01, 2000, expected=2000 * 50 / t.level
        )  # 40, 50 and 60 came; 50 were asked for
        for t in shares
    ]
    assert estimated(asked).middle == pytest.approx(exact, rel=0.01)


def test_the_objective_that_gives_way_first_decides() -> None:
    slo = parse_slo("p90:ttft=100ms,p90:tpot=10ms")
    ttft = [seen(40, 0.0), seen(50, 0.1), seen(60, 0.5)]
    both = [Tally(t.level, (t.outside[0], seen(t.level + 10, 0.5).outside[0]), 0.01, 2000) for t in ttft]
    assert estimate_knee(both, slo, 0.01).middle < estimate_knee(ttft, slo[:1], 0.01).middle


def test_requests_that_are_outside_together_widen_the_interval() -> None:
    def clustered(level: float, share: float) -> Tally:
        outside = np.repeat(seen(level, share, count=40).outside[0], 50)
        return Tally(level, (outside,), 0.01, 2000, 2000.0)

    apart = estimated([seen(level, share, expected=2000.0) for level, share in ((48, 0.05), (52, 0.2))])
    together = estimated([clustered(48, 0.05), clustered(52, 0.2)])
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_lost_probe_says_nothing_of_the_variance_near_the_knee() -> None:
    near = [seen(48, 0.05, expected=2000.0), seen(52, 0.2, expected=2000.0)]
    lost = Tally(56.0, (np.ones(500),), 0.01, 500, 500.0)
    assert estimated([*near, lost]).high < 1.1 * estimated(near).high


def test_a_certain_verdict_needs_enough_requests() -> None:
    slo = parse_slo("p99:ttft=100ms")
    assert Tally(1.0, (np.zeros(400),), 0.01, 400).certain(slo)
    assert not Tally(1.0, (np.zeros(300),), 0.01, 300).certain(slo)
    assert not Tally(1.0, (np.array([]),), 0.01, 0).certain(slo)


def test_hopeless_is_a_lost_second_half() -> None:
    assert hopeless(np.array([0.0] * 30 + [1.0] * 30))
    assert not hopeless(np.array([1.0] * 30 + [0.0] * 30))
    assert not hopeless(np.ones(20))


def test_waiting_requests_of_a_probe_that_is_shorter_than_the_limit_count_as_outside() -> None:
    slo = parse_slo("p90:ttft=2s,p90:e2e=3s")
    # 100 came, 20 have a first token and 10 an end; 5 are usually in service.
    queue = Tally(100.0, (np.zeros(20), np.zeros(10)), 0.05, 100)
    assert unanswered(queue, slo, 5.0) == [60, 78]
    assert with_queue(queue, slo, 5.0).misses(slo)
    none = Tally(100.0, (np.zeros(90), np.zeros(93)), 0.05, 100)
    assert with_queue(none, slo, 5.0).outside[0].sum() == 0
    assert with_queue(none, slo, 5.0).outside[1].sum() == 0


def test_one_slow_request_far_below_does_not_rule_out_a_knee() -> None:
    near = [seen(48, 0.05, expected=2000.0), seen(52, 0.2, expected=2000.0)]
    slow = Tally(1.0, (np.ones(1),), 0.01, 1, 1.0)
    assert estimated([slow, *near]).middle == pytest.approx(estimated(near).middle, rel=0.02)


def test_the_knee_is_not_above_the_capacity() -> None:
    few = [seen(40, 0.0, count=200, expected=200.0), seen(80, 1.0, count=40, expected=40.0)]
    capacity = Capacity()
    capacity.drained(200, 4.0)
    bounded = estimate(few, 0, SLO[0], 0.01, capacity)
    assert bounded.high < 60 < estimated(few).high
    assert bounded.low < 50
