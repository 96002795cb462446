import pytest

from proxy.core.events import Arrive, End, Output
from proxy.gpu.measured import CostMeter
from proxy.gpu.served import RequestSet, compare, serve
from tests.proxy.gpu.modelled import Counting, ModelledDevice

FOUR = RequestSet("four", ((100, 16), (200, 32), (300, 48), (50, 24)), rounds=6)


def test_a_round_has_an_arrival_an_end_and_each_token_of_each_request() -> None:
    served = serve(ModelledDevice(), Counting(), FOUR, 512)
    events = served.events
    assert sum(isinstance(e, Arrive) for e in events) == 4 * 6
    assert sum(isinstance(e, End) for e in events) == 4 * 6
    assert sum(isinstance(e, Output) for e in events) == (16 + 32 + 48 + 24) * 6


def test_steps_is_nearer_to_the_measured_truth_than_tokens_and_overlap() -> None:
    meter = CostMeter(ModelledDevice(), Counting())
    found = compare(meter, FOUR, 512, 64)
    errors = {score.policy: score.median for score in found.scores}
    assert found.closure == pytest.approx(1.0, abs=0.01)
    assert errors["steps"] < 0.03
    assert errors["steps"] < min(errors["tokens"], errors["overlap"])
    assert found.halves["steps"] < 0.02


def test_one_request_alone_gets_the_joules_of_the_counter() -> None:
    found = compare(CostMeter(ModelledDevice(), Counting()), RequestSet("one", ((128, 24),), 6), 512, 64)
    assert found.scores[0].p95 < 0.02
