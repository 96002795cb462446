import numpy as np
import pytest

from proxy.core.numerics.nonnegative import nonnegative


def test_solutions_are_least_squares_with_no_negative_term() -> None:
    gram = np.array([[2.0, 1.9, 0.0], [1.9, 2.0, 0.0], [0.0, 0.0, 1.0]])
    assert nonnegative(gram, gram @ np.array([1.0, 2.0, 3.0])) == pytest.approx([1.0, 2.0, 3.0])
    bound = nonnegative(gram, np.array([2.0, -1.0, -3.0]))
    assert bound == pytest.approx([1.0, 0.0, 0.0])
    assert nonnegative(gram, np.array([-1.0, -1.0, -1.0])).tolist() == [0.0, 0.0, 0.0]
    free_again = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.99], [0.9, 0.99, 1.0]])
    solution = nonnegative(free_again, np.array([1.0, 1.2, 0.8]))
    assert (solution >= 0.0).all()
    assert (free_again @ solution - np.array([1.0, 1.2, 0.8]) >= -1e-9).all()


def test_the_solution_does_not_depend_on_where_the_search_begins() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        rows = rng.normal(size=(40, 5))
        gram, moment = rows.T @ rows, rows.T @ rng.normal(size=40)
        found = nonnegative(gram, moment)
        for guess in (found, 1.0 - found, np.zeros(5), rng.normal(size=5)):
            assert nonnegative(gram, moment, guess) == pytest.approx(found, rel=1e-9, abs=1e-12)
