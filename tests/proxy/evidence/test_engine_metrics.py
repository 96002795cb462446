import pytest

from proxy.evidence.engine_metrics import Comparison, EngineState, OurState, parse_metrics

PAGE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 4.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 4249.0
"""


def _state(running: float, tokens: float, waiting: float = 0.0) -> EngineState:
    return EngineState(running, waiting, tokens)


def test_a_page_of_vllm_is_summed_over_its_engines() -> None:
    assert parse_metrics(PAGE) == EngineState(5.0, 4.0, 4249.0)


def test_another_page_is_no_vllms_and_nonsense_is_an_error() -> None:
    assert parse_metrics("# TYPE up gauge\nup 1\n") is None
    with pytest.raises(ValueError, match="could not convert"):
        parse_metrics("vllm:num_requests_running many\n")


def test_all_of_it_ours() -> None:
    comparison = Comparison()
    assert comparison.feed(_state(4, 0), OurState(4)) is None
    unseen = comparison.feed(_state(3, 200), OurState(5))
    assert unseen is not None
    assert (unseen.share, unseen.requests) == (0.0, 0.0)


def test_what_exceeds_ours_is_a_share_of_the_batch() -> None:
    comparison = Comparison()
    comparison.feed(_state(8, 0), OurState(4))
    unseen = comparison.feed(_state(8, 800), OurState(6))
    assert unseen is not None
    assert (unseen.share, unseen.requests, unseen.tokens) == (2 / 8, 2.0, 200.0)


def test_an_excess_at_one_scrape_only_may_be_the_two_clocks() -> None:
    comparison = Comparison()
    comparison.feed(_state(4, 0), OurState(4))
    first = comparison.feed(_state(6, 100), OurState(4))
    second = comparison.feed(_state(4, 200), OurState(4))
    assert [u.share for u in (first, second) if u] == [0.0, 0.0]


def test_tokens_while_nothing_of_ours_is_there_are_others() -> None:
    comparison = Comparison()
    comparison.feed(_state(0, 0), OurState(0))
    unseen = comparison.feed(_state(0, 50), OurState(0))
    assert unseen is not None
    assert (unseen.share, unseen.tokens) == (1.0, 50.0)
    quiet = comparison.feed(_state(0, 50), OurState(0))
    assert quiet is not None
    assert quiet.share == 0.0


def test_tokens_of_ours_that_were_counted_late_are_not_others() -> None:
    comparison = Comparison()
    comparison.feed(_state(1, 0), OurState(1))
    unseen = comparison.feed(_state(0, 50), OurState(0))  # it ended right after the last look
    assert unseen is not None
    assert unseen.share == 0.0


def test_a_restarted_engine_begins_anew() -> None:
    comparison = Comparison()
    comparison.feed(_state(9, 1000), OurState(0))
    assert comparison.feed(_state(9, 10), OurState(0)) is None
