import numpy as np
import pytest

from proxy.core.activity.work import Entries, Work
from proxy.core.fit.model import EnergyModel
from proxy.core.fit.term_doubt import term_doubts
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def work(*decode: float) -> Work:
    """Return one step of several requests, each with half a static step and some decoded tokens."""
    count = len(decode)
    static = np.full(count, 0.5)
    entries = Entries(ints(*[0] * count), ints(*range(count)), static, decode=np.array(decode))
    ones = np.zeros(1)
    return Work(count, ints(0), ints(S), ones, ones, ints(*[0] * count), ints(*[1] * count), (entries,))


def model(together: bool) -> EnergyModel:
    """Return a fit of windows in which steps and decoded tokens came together, or not."""
    rng = np.random.default_rng(5)
    rows = np.zeros((200, 6))
    rows[:, 0] = rng.integers(5, 30, 200)
    rows[:, 1] = 8.0 * rows[:, 0] if together else rng.integers(5, 300, 200)
    found = EnergyModel(1)
    found.learn(
        rows, rows @ np.array([2.0, 0.05, 0.0, 0.0, 0.0, 0.0]) + rng.normal(0.0, 0.2, 200), np.ones(200)
    )
    return found


def test_terms_that_came_together_are_no_doubt_where_requests_are_alike() -> None:
    fit = model(together=True)
    (alike,) = term_doubts(fit, [work(4.0, 4.0)], [0], [np.ones(1)], 0.0)
    assert alike == pytest.approx([0.0, 0.0], abs=1e-6)


def test_they_are_a_doubt_of_requests_that_differ_and_less_where_the_data_separates_them() -> None:
    (unsure,) = term_doubts(model(together=True), [work(1.0, 60.0)], [0], [np.ones(1)], 0.0)
    (sure,) = term_doubts(model(together=False), [work(1.0, 60.0)], [0], [np.ones(1)], 0.0)
    assert unsure[0] == pytest.approx(unsure[1]), "one gets what the other does not"
    assert unsure[0] > 5.0 * sure[0] > 0.0


def test_nothing_measured_is_no_doubt() -> None:
    (none,) = term_doubts(EnergyModel(1), [work(1.0, 2.0)], [0], [np.zeros(1)], 0.0)
    assert none.tolist() == [0.0, 0.0]
