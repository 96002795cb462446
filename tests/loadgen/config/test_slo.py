import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config.slo import Objective, format_duration, meets, parse_slo


def test_bare_duration_is_ttft_for_streams_and_e2e_else() -> None:
    assert parse_slo("200ms") == (Objective("ttft", 0.2, 99.0),)
    assert parse_slo("2s", streamed=False) == (Objective("e2e", 2.0, 99.0),)


def test_lists_with_percentiles() -> None:
    assert parse_slo("p95:ttft=200ms,tpot=50ms") == (
        Objective("ttft", 0.2, 95.0),
        Objective("tpot", 0.05, 99.0),
    )


@pytest.mark.parametrize(
    "text", ["", "200", "ttft", "foo=1s", "p0:ttft=1s", "px:ttft=1s", "0ms", "ttft=1s,ttft=2s", "1s,"]
)
def test_a_malformed_slo_is_reported_with_a_valid_one(text: str) -> None:
    with pytest.raises(ValueError, match="--slo"):
        parse_slo(text)


@given(st.sampled_from(["ttft", "tpot", "itl", "e2e"]), st.integers(1, 10**5), st.integers(1, 99))
def test_text_of_an_objective_parses_to_itself(metric: str, ms: int, percentile: int) -> None:
    one = Objective(metric, ms / 1000, float(percentile))
    (again,) = parse_slo(str(one))
    assert again.metric == metric
    assert again.limit_seconds == pytest.approx(one.limit_seconds, rel=1e-5)


def test_undefined_metric_cannot_be_violated() -> None:
    assert meets({"ttft": 0.1, "tpot": None}, parse_slo("ttft=200ms,tpot=1ms"))
    assert not meets({"ttft": 0.3}, parse_slo("200ms"))


def test_durations() -> None:
    assert (format_duration(0.2), format_duration(2.5)) == ("200ms", "2.5s")


def test_a_missing_first_token_violates_the_limit() -> None:
    nothing = {"ttft": None, "tpot": None, "itl": None, "e2e": 0.1}
    assert not meets(nothing, parse_slo("ttft=1s"))
    assert meets(nothing, parse_slo("tpot=1ms,e2e=1s"))
