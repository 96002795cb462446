import pytest

from tests.truth.harness import CASES, measure

# Cases that miss their target today are in docs/accuracy.md.
MEETING = ["light", "medium", "medium, budget 512", "medium, merged chunks", "small GPU"]

pytestmark = pytest.mark.truth


@pytest.mark.parametrize("name", MEETING)
def test_steps_meets_its_target(name: str) -> None:
    row = measure(name, "steps", seed=2)
    assert row.median <= row.target[0]
    assert row.p95 <= row.target[1]
    assert row.conservation <= 1e-9


@pytest.mark.parametrize("policy", ["overlap", "tokens", "steps"])
def test_all_of_the_noise_conserves(policy: str) -> None:
    assert measure("medium, all of it", policy).conservation <= 1e-9


def test_steps_is_far_better_than_overlap_under_load() -> None:
    assert measure("heavy", "steps").median < 0.2 * measure("heavy", "overlap").median


def test_every_case_is_known() -> None:
    assert set(MEETING) <= set(CASES)
