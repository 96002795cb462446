from dataclasses import replace

import pytest

from proxy.simulator.profiles.profile import DEFAULT, load
from tests.calibration.models import Workload, workload
from tests.calibration.steady_state import measure

PROFILE = replace(load(DEFAULT), cap_watts=None)
WORK = Workload(100, sigma=0.5)
CHAT_TOKENS = 397.0  # of an answer, the published mean of Llama-3.1-8B


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


def joules(name: str, task: str, batch: int, output_tokens: float) -> float:
    """Of a token, of a profile of this package."""
    return measure(load(name), workload(task), batch, output_tokens).joules_per_token


def test_llama_8b_on_an_h100_is_best_at_512_of_768_streams() -> None:
    """Where its cache is full; with answers of 280 tokens it would be at 768."""
    each = {
        batch: joules("h100-llama-3.1-8b", "lm-arena-chat", batch, CHAT_TOKENS) for batch in (256, 512, 768)
    }
    assert min(each, key=each.__getitem__) == 512


def test_fp8_loses_at_small_batches_and_wins_at_large_ones() -> None:
    """Qwen3-235B Thinking on four B200; published: 1.54 x the joules of BF16 at 8, 0.84 x at 256."""
    ratios = [
        joules("b200x4-qwen3-235b-a22b-thinking-2507-fp8-reasoning", "gpqa", batch, 4000.0)
        / joules("b200x4-qwen3-235b-a22b-thinking-2507-reasoning", "gpqa", batch, 4000.0)
        for batch in (8, 32, 256)
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1.3
    assert ratios[-1] < 0.95


@pytest.mark.parametrize(
    ("model", "batch", "wins"),  # published ratios: 0.86, 1.03, 0.86; 1.10, 1.12
    [
        ("llama-3.1-8b", 8, True),
        ("llama-3.1-8b", 128, False),
        ("llama-3.1-8b", 512, True),
        ("qwen3-30b-a3b-2507", 8, False),
        ("qwen3-30b-a3b-2507", 64, False),
    ],
)
def test_a_b200_wins_and_loses_against_an_h100_where_it_was_published(
    model: str, batch: int, wins: bool
) -> None:
    b200, h100 = (joules(f"{gpu}-{model}", "lm-arena-chat", batch, CHAT_TOKENS) for gpu in ("b200", "h100"))
    assert (b200 < h100) == wins
