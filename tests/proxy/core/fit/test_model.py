import numpy as np
import pytest

from proxy.core.fit.model import PRIOR, EnergyModel

TRUTH = np.array([3.0, 0.01, 2e-5, 0.01, 150.0])


def windows(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of windows of 0.1 s, their joules with 70 W of idling, and their lengths."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, 6))
    rows[:, 0] = rng.integers(0, 12, count)
    rows[:, 1] = rows[:, 0] * rng.integers(1, 30, count)
    rows[:, 2] = rows[:, 1] * rng.uniform(100, 2_000, count)
    rows[:, 3] = rng.integers(0, 2, count) * rng.uniform(50, 3_000, count)
    rows[:, 5] = np.where(rows[:, 0] == 0, 0.1, rng.uniform(0.0, 0.05, count))
    rows[:, 4] = 0.1 - rows[:, 5]
    return rows, rows @ np.append(TRUTH, 70.0), np.full(count, 0.1)


def test_the_terms_are_found_again() -> None:
    model = EnergyModel(1)
    assert (model.r2, model.mature, model.windows) == (None, False, 0.0)
    model.learn(*windows())
    assert model.theta[:5] == pytest.approx(TRUTH, rel=0.02)
    assert model.theta[5] == pytest.approx(70.0, rel=0.02)
    assert model.mature
    assert model.r2 == pytest.approx(1.0, abs=1e-3)


def test_an_old_engine_is_forgotten() -> None:
    model = EnergyModel(1)
    model.learn(*windows(2_000))
    rows, joules, seconds = windows(12_000, seed=1)
    for start in range(0, 12_000, 1_000):
        now = slice(start, start + 1_000)
        model.learn(rows[now], 2.0 * joules[now], seconds[now])
    assert model.theta[:5] == pytest.approx(2.0 * TRUTH, rel=0.03)
    assert model.windows < 3_000, "of 14,000"


def test_what_was_never_seen_keeps_its_prior() -> None:
    model = EnergyModel(1)
    rows, _, seconds = windows()
    rows[:, 3] = 0.0
    model.learn(rows, rows @ np.append(TRUTH, 70.0), seconds)
    assert model.theta[3] == PRIOR[3]


def test_deviations_hold_the_truth_of_noisy_windows() -> None:
    misses = np.zeros(6)
    for seed in range(20):
        rows, joules, seconds = windows(400, seed)
        model = EnergyModel(1)
        model.learn(rows, joules + np.random.default_rng(seed + 100).normal(0.0, 2.0, len(joules)), seconds)
        misses += np.abs(model.theta - np.append(TRUTH, 70.0)) > 3.0 * model.deviations()
    assert misses.max() <= 1, "of 20"


def test_terms_that_always_come_together_are_unsure_and_so_are_unseen_ones() -> None:
    rows, _, seconds = windows()
    rows[:, 1] = 8.0 * rows[:, 0]
    rows[:, 3] = 0.0
    model = EnergyModel(1)
    assert np.isinf(model.deviations()).all()
    model.learn(rows, rows @ np.append(TRUTH, 70.0), seconds)
    static, decode, _, prefill, _, idle = model.deviations()
    assert decode > 0.5 * model.theta[1]
    assert np.isinf(prefill)
    assert idle < 0.05 * model.theta[5]
    assert static < model.theta[0]


def test_nothing_teaches_nothing() -> None:
    model = EnergyModel(1)
    model.learn(np.empty((0, 6)), np.empty(0), np.empty(0))
    model.learn(np.zeros((1, 6)), np.ones(1), np.ones(1))
    assert model.theta[:5].tolist() == list(PRIOR)
    assert model.r2 is None


def test_energy_that_nothing_explains_makes_no_negative_terms() -> None:
    model = EnergyModel(1)
    rows, _, seconds = windows()
    model.learn(rows, np.zeros(len(rows)), seconds)
    assert (model.theta >= 0.0).all()
    assert model.r2 is None


def test_groups_share_a_device_and_a_newcomer_changes_nothing() -> None:
    model = EnergyModel(1)
    rows, joules, seconds = windows()
    model.learn(rows, joules, seconds)
    before = model.theta[:5].copy()
    model.widen(2)
    assert model.theta[:5].tolist() == before.tolist()
    assert model.theta[5:10].tolist() == list(PRIOR)
    assert model.theta[10] == pytest.approx(70.0, rel=0.02)


def test_windows_that_were_seen_wrongly_do_not_move_the_terms() -> None:
    """The first windows hold prompts that came before the readings."""
    rng = np.random.default_rng(3)
    features = np.zeros((60, 6))
    features[:, 0] = rng.integers(5, 20, 60)
    features[:, 1] = features[:, 0] * rng.integers(2, 30, 60)
    features[:, 3] = rng.integers(0, 800, 60)
    features[:, 4] = 0.01 * features[:, 0]
    joules = features @ np.array([2.0, 0.02, 0.0, 0.01, 0.0, 0.0])
    joules[:3] *= (1.5, 0.6, 1.4)
    model = EnergyModel(1)
    model.learn(features, joules, np.full(60, 0.2))
    assert model.parts(0)[0] is not None
    assert features[10:] @ model.theta == pytest.approx(joules[10:], rel=0.01)


def test_of_engines_whose_steps_alternate_the_one_of_longer_steps_costs_more() -> None:
    """The data determines the sum of their static terms only."""
    features = np.zeros((40, 11))
    features[:, 0] = features[:, 5] = 16.0
    features[:, 4], features[:, 9] = 16 * 0.005, 16 * 0.015
    model = EnergyModel(2)
    model.learn(features, np.full(40, 16 * 8.0), np.full(40, 0.32))
    per_step = model.theta[[0, 5]] + model.theta[[4, 9]] * (0.005, 0.015)
    assert per_step.sum() == pytest.approx(8.0, rel=0.02)
    assert per_step[1] / per_step[0] == pytest.approx(3.0, rel=0.35)
