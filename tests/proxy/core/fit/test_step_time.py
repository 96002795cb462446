import math
from typing import Any

import numpy as np
import pytest

from proxy.core.fit import step_time
from proxy.core.fit.step_time import FORMS, StepTime, StepTimes, fit

TRUTH = StepTime(overhead=1e-3, weights=6e-3, context=5e-8, decode=2.5e-5, prefill=3e-5)


def steps(p: float, count: int = 600, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, StepTime]:
    """Streams, context and prompt tokens of steps, their lengths, and the time that made them."""
    rng = np.random.default_rng(3)
    streams = rng.integers(1, 60, count).astype(float)
    prompt = np.where(rng.random(count) < 0.3, rng.uniform(20, 2_000, count), 0.0)
    rows = np.stack([streams, streams * rng.uniform(100, 3_000, count), prompt], axis=1)
    time = StepTime(TRUTH.overhead, TRUTH.weights, TRUTH.context, TRUTH.decode, TRUTH.prefill, p)
    return rows, time.seconds(*rows.T) * rng.normal(1.0, noise, count), time


@pytest.mark.parametrize("p", FORMS)
def test_the_form_and_the_terms_of_clean_steps_are_found(p: float) -> None:
    rows, seconds, _ = steps(p)
    found = fit(rows, seconds)
    assert found.p == p
    assert found.prefill == pytest.approx(TRUTH.prefill, rel=0.02)
    assert found.context == pytest.approx(TRUTH.context, rel=0.02)
    assert np.abs(found.seconds(*rows.T) / seconds - 1.0).max() < 0.01


def test_noise_and_stalled_steps_do_not_change_the_form() -> None:
    rows, seconds, _ = steps(math.inf, noise=0.02)
    seconds[::40] *= 6.0
    found = fit(rows, seconds)
    assert found.p >= 2.5
    assert found.prefill == pytest.approx(TRUTH.prefill, rel=0.05)


def test_room_is_what_was_computed_where_it_shows_and_a_bound_where_it_does_not() -> None:
    rows, seconds, time = steps(math.inf)
    room, seen = time.room(seconds, rows[:, 0], rows[:, 1])
    assert seen.any()
    assert not seen.all()
    assert room[seen] == pytest.approx(rows[seen, 2], rel=0.02)
    assert (room[~seen] >= rows[~seen, 2] - 1.0).all()


def test_learning_is_by_kind_and_a_copy_learns_alone() -> None:
    rows, seconds, _ = steps(1.0)
    times = StepTimes()
    assert times.time is None
    other = times.copy()
    for begin in range(0, len(rows), 100):
        other.learn(rows[begin : begin + 100], seconds[begin : begin + 100])
    assert other.time is not None
    assert other.time.prefill == pytest.approx(TRUTH.prefill, rel=0.02)
    assert other.seconds == pytest.approx(float(seconds.sum()))
    assert (times.time, times.seconds) == (None, 0.0)


def test_a_fit_is_made_anew_when_steps_have_doubled_or_are_predicted_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits: list[int] = []

    def counted(rows: np.ndarray, seconds: np.ndarray, guess: StepTime | None = None) -> StepTime:
        fits.append(len(rows))
        return fit(rows, seconds, guess)

    monkeypatch.setattr(step_time, "fit", counted)
    rows, seconds, _ = steps(1.0, count=16_000, noise=0.01)
    times = StepTimes()
    for begin in range(0, len(rows), 100):
        times.learn(rows[begin : begin + 100], seconds[begin : begin + 100])
    assert len(fits) <= 8, "after 100 steps, and each time that they have doubled"
    fits.clear()
    for begin in range(0, 8_000, 100):  # the clock of the device is lowered
        times.learn(rows[begin : begin + 100], 1.5 * seconds[begin : begin + 100])
    assert 1 <= len(fits) <= 8
    assert times.time is not None
    assert times.time.prefill == pytest.approx(1.5 * TRUTH.prefill, rel=0.02)


def test_other_forms_are_not_tried_where_one_explains_the_steps_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[float] = []
    fit_form = step_time._fit_form

    def noted(p: float, *others: Any) -> tuple[StepTime, float]:
        tried.append(p)
        return fit_form(p, *others)

    monkeypatch.setattr(step_time, "_fit_form", noted)
    rows, seconds, _ = steps(1.0)
    assert fit(rows, seconds).p == 1.0
    assert tried == [1.0]
