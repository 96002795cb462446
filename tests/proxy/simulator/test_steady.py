from dataclasses import replace

import pytest

from proxy.simulator.catalog import Workload
from proxy.simulator.profile import DEFAULT, load
from proxy.simulator.steady import measure

PROFILE = replace(load(DEFAULT), cap_watts=None)
WORK = Workload(100, sigma=0.5)


def test_what_is_measured_is_what_the_constants_say() -> None:
    seconds, joules = PROFILE.seconds, PROFILE.joules
    found = measure(PROFILE, WORK, 8, 300.0)
    context = 8 * (100 + 300 * 0.64)
    prompts = 8 / 300 * 100
    step = seconds.static + 8 * seconds.decode + context * seconds.context
    energy = joules.static + 8 * joules.decode + context * joules.context + prompts * joules.prefill
    assert found.median_itl_seconds == pytest.approx(step, rel=0.05)
    assert found.joules_per_token == pytest.approx(energy / 8, rel=0.05)
    assert found.tokens_per_second == pytest.approx(8 / (step + prompts * seconds.prefill), rel=0.05)
    assert found.watts == pytest.approx(found.joules_per_token * found.tokens_per_second, rel=1e-9)
    assert found.preemptions == 0


def test_more_streams_cost_less_a_token_until_memory_ends() -> None:
    each = [measure(PROFILE, WORK, batch, 200.0).joules_per_token for batch in (1, 8, 64, 256)]
    assert each == sorted(each, reverse=True)
    assert each[0] / each[-1] > 5
    small = replace(PROFILE, limits=replace(PROFILE.limits, kv_tokens=40_000))
    found = measure(small, WORK, 256, 200.0)
    assert found.preemptions > 0
    assert found.joules_per_token > each[-1]
