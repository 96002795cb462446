import numpy as np
import pytest

from tests.calibration import least_squares

BATCH = np.array([1.0, 8.0, 64.0, 512.0])


def test_constants_are_found_over_orders_of_magnitude() -> None:
    terms = np.column_stack([np.ones(4), BATCH])
    assert least_squares.fit(terms, terms @ [3.0, 0.05]) == pytest.approx([3.0, 0.05])


def test_an_outlier_does_not_bend_the_rest() -> None:
    batch = np.arange(1.0, 12.0)
    terms = np.column_stack([np.ones(11), batch])
    values = terms @ [3.0, 0.5]
    values[5] *= 3
    assert least_squares.fit(terms, values) == pytest.approx([3.0, 0.5], rel=0.02)


def test_a_constant_that_would_be_negative_is_left_out() -> None:
    terms = np.column_stack([np.ones(4), BATCH, np.zeros(4)])
    found = least_squares.fit(terms, 5.0 - 0.001 * BATCH)
    assert found[1] == found[2] == 0.0
    assert found[0] > 0
    assert least_squares.error(terms, 5.0 - 0.001 * BATCH, found) < 0.1
