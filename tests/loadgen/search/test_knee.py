import msgspec
import numpy as np
import pytest

from loadgen.config.slo import parse_slo
from loadgen.search.knee import Tally, hopeless, knee_interval, posterior, tally
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


def test_the_crossing_of_a_known_curve() -> None:
    def curve(level: float) -> float:
        return float(1 / (1 + np.exp(-(np.log(0.1 / 0.9) + 20 * np.log(level / 50)))))

    tallies = [seen(level, curve(level)) for level in (30, 45, 48, 50, 52, 60)]
    low, middle, high = posterior(tallies, 0, 0.1, 0.01)
    assert low < 50 < high
    assert middle == pytest.approx(50, rel=0.02)
    assert (high - low) / middle < 0.1


def test_more_arrivals_than_asked_for_move_the_knee_up() -> None:
    asked = [seen(50, 0.1, expected=2000.0), seen(60, 0.6, expected=2000.0), seen(40, 0.01, expected=2000.0)]
    more = [seen(50, 0.1, expected=1900.0), seen(60, 0.6, expected=1900.0), seen(40, 0.01, expected=1900.0)]
    ratio = posterior(more, 0, 0.1, 0.01)[1] / posterior(asked, 0, 0.1, 0.01)[1]
    assert ratio == pytest.approx(2000 / 1900, rel=1e-6)


def test_the_objective_that_gives_way_first_decides() -> None:
    slo = parse_slo("p90:ttft=100ms,p90:tpot=10ms")
    ttft = [seen(40, 0.0), seen(50, 0.1), seen(60, 0.5)]
    both = [Tally(t.level, (t.outside[0], seen(t.level + 10, 0.5).outside[0]), 0.01, 2000) for t in ttft]
    assert knee_interval(both, slo, 0.01)[1] < knee_interval(ttft, slo[:1], 0.01)[1]


def test_few_requests_in_one_busy_period_say_little() -> None:
    tallies = [seen(48, 0.05, expected=2000.0), seen(52, 0.2, expected=2000.0)]
    low, _, high = posterior(tallies, 0, 0.1, 0.01)
    lower, _, higher = posterior(tallies, 0, 0.1, 5.0)  # 200 in flight share one state
    assert higher - lower > 1.05 * (high - low)


def test_hopeless_is_a_lost_second_half() -> None:
    assert hopeless(np.array([0.0] * 30 + [1.0] * 30))
    assert not hopeless(np.array([1.0] * 30 + [0.0] * 30))
    assert not hopeless(np.ones(20))
