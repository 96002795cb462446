import numpy as np
import pytest

from proxy.core.activity.work import Entries
from proxy.core.fit.pricing import PRIOR_TIME, priced, prior_time
from proxy.core.fit.step_time import StepTimes


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_all_seconds_of_each_step_are_priced_before_and_after_a_fit() -> None:
    decoding = Entries(ints(0, 0, 1), ints(0, 1, 0), np.array([0.5, 0.5, 0.5]), np.ones(3), np.full(3, 900.0))
    prompts = Entries(ints(1), ints(2), np.array([0.5]), None, np.zeros(1), np.array([400.0]))
    took = np.array([0.008, 0.019])
    entries, prices = priced(StepTimes(), took, decoding, prompts, [])
    seconds = np.zeros(2)
    for one in entries:
        for column in range(4):
            values = one.seconds(column, prices)
            if values is not None:
                seconds += np.bincount(one.cell, values, minlength=2)
    assert seconds == pytest.approx(took)
    assert entries[1].prefill_seconds is not None
    assert entries[1].prefill_seconds[0] > 0.3 * took[1]


def test_the_prior_is_scaled_to_the_time_that_was_seen() -> None:
    rows = np.array([[4.0, 2_000.0, 0.0], [4.0, 2_000.0, 500.0]])
    time = prior_time(0.1, rows)
    assert time.seconds(*rows.T).sum() == pytest.approx(0.1)
    assert time.prefill / time.weights == pytest.approx(PRIOR_TIME.prefill / PRIOR_TIME.weights)
