from dataclasses import replace

import numpy as np
import pytest

from proxy.simulator.engine.step_costs import StepCosts
from proxy.simulator.profiles.profile import DEFAULT, Experts, load

PROFILE = replace(load(DEFAULT), cap_watts=None)
MIXTURE = replace(PROFILE, experts=Experts(count=128, routed=8), joules=replace(PROFILE.joules, experts=5.0))


def test_many_steps_cost_what_they_cost_one_by_one() -> None:
    for cap in (None, 400.0):
        costs = StepCosts(replace(PROFILE, cap_watts=cap))
        seconds, joules = costs.steps(8, 4000, 5)
        one_by_one = [costs.step(8, 4000 + 8 * i, 0) for i in range(5)]
        np.testing.assert_allclose(np.column_stack([seconds, joules]), one_by_one, rtol=1e-12)


def test_a_limit_lowers_the_clock_and_saves_joules() -> None:
    free, limited = StepCosts(PROFILE), StepCosts(replace(PROFILE, limit_watts=300.0))
    seconds, joules = free.step(100, 50_000, 0)
    longer, fewer = limited.step(100, 50_000, 0)
    assert fewer / longer == pytest.approx(300.0)
    assert limited.clock == pytest.approx(seconds / longer)
    idle = PROFILE.idle_watts
    asked = joules / seconds - idle
    assert asked * limited.clock**3 == pytest.approx(300.0 - idle)
    assert fewer < joules
    np.testing.assert_allclose(limited.steps(100, 50_000, 1), [[longer], [fewer]])
    high = StepCosts(replace(PROFILE, limit_watts=1e6))
    assert (high.step(100, 50_000, 0), high.clock) == ((seconds, joules), 1.0)
    with pytest.raises(ValueError, match="limit_watts 5 is not above idle_watts"):
        StepCosts(replace(PROFILE, limit_watts=5.0))


def test_a_cap_makes_steps_longer_and_keeps_what_is_above_idle() -> None:
    free, capped = StepCosts(PROFILE), StepCosts(replace(PROFILE, cap_watts=300.0))
    seconds, joules = free.step(100, 50_000, 0)
    longer, more = capped.step(100, 50_000, 0)
    assert joules / seconds > 300.0
    assert more / longer == pytest.approx(300.0)
    idle = PROFILE.idle_watts
    assert more - idle * longer == pytest.approx(joules - idle * seconds)
    low = StepCosts(replace(PROFILE, cap_watts=1e6))
    assert low.step(100, 50_000, 0) == (seconds, joules)
    with pytest.raises(ValueError, match="not above idle_watts"):
        StepCosts(replace(PROFILE, cap_watts=10.0))


def test_few_tokens_touch_few_experts() -> None:
    costs = StepCosts(MIXTURE)
    added = [costs.step(n, 0, 0)[1] - StepCosts(PROFILE).step(n, 0, 0)[1] for n in (1, 2, 1000)]
    assert added == pytest.approx([5.0 / 16, 5.0 * (1 - (15 / 16) ** 2), 5.0])


def test_shares_add_up_to_the_step() -> None:
    costs = StepCosts(MIXTURE)
    shares = costs.shares(7, 90)
    total = shares.static + 7 * shares.token + 90 * shares.prompt + 3000 * shares.context
    assert total == pytest.approx(costs.step(7, 3000, 90)[1], rel=1e-12)
