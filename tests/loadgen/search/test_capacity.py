"""The capacity of a server from the draining of its queue, and the bound that it sets to the knee."""

import math

import numpy as np
import pytest

from loadgen.search.capacity import Capacity


def test_the_rate_is_that_of_all_drainings_together() -> None:
    capacity = Capacity()
    assert capacity.rate is None
    capacity.drained(60, 2.0)
    capacity.drained(30, 1.5)
    assert capacity.rate == pytest.approx(90 / 3.5)


@pytest.mark.parametrize(("requests", "seconds"), [(7, 2.0), (60, 0.5), (-3, 5.0)])
def test_a_draining_of_a_few_requests_or_of_a_moment_gives_no_rate(requests: int, seconds: float) -> None:
    capacity = Capacity()
    capacity.drained(requests, seconds)
    assert capacity.rate is None


def test_a_knee_above_the_capacity_is_improbable_and_one_below_is_not() -> None:
    capacity = Capacity()
    knees = np.log([20.0, 40.0, 60.0])
    assert capacity.log_prior(knees).tolist() == [0, 0, 0]
    capacity.drained(100, 2.5)
    below, at, above = capacity.log_prior(knees).tolist()
    assert below > -0.01
    assert at == pytest.approx(math.log(0.5))
    assert above < -4
