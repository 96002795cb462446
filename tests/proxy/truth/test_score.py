import pytest

from proxy.truth.files import Estimate
from proxy.truth.score import score

TRUTH = {"r0": 2.0, "r1": 4.0}


def test_errors_are_relative_to_the_truth_and_the_sum_is_signed() -> None:
    found = score(TRUTH, {"r0": Estimate(1.0), "r1": Estimate(4.0)})
    assert found.errors.tolist() == [0.0, 0.5]
    assert found.median == pytest.approx(0.25)
    assert found.sum_error == pytest.approx(-1 / 6)
    assert (found.inside, found.width, found.missing) == (None, None, 0)


def test_a_request_without_an_estimate_counts_as_100_percent_and_as_missing() -> None:
    found = score(TRUTH, {"r0": Estimate(2.0), "r1": Estimate(None)})
    assert found.errors.tolist() == [0.0, 1.0]
    assert found.missing == 1
    assert score(TRUTH, {}).missing == 2


def test_coverage_and_width_are_those_of_the_intervals() -> None:
    found = score(TRUTH, {"r0": Estimate(2.0, 1.0, 3.0), "r1": Estimate(8.0, 6.0, 10.0)})
    assert found.inside == 0.5
    assert found.width == pytest.approx(0.75)


def test_an_interval_open_above_holds_what_is_higher_and_has_no_width() -> None:
    found = score(TRUTH, {"r0": Estimate(1.0, 1.0, None), "r1": Estimate(5.0, 4.5, None)})
    assert (found.inside, found.width) == (0.5, None)
