"""How much of a prompt was computed, where the engine does not report what it had cached."""

import numpy as np
import pytest

from proxy.core.activity.tracks import Track
from proxy.core.events import Arrive, End
from proxy.core.reconstruct.cached import (
    ESTIMATED,
    REPORTED,
    UNKNOWN,
    PromptSizes,
    StepRoom,
    cached_from,
    cached_tokens,
    computed,
    doubts,
)


def track(prefix: int | None = None, cached: int | None = None, prompt: int | None = 1000) -> Track:
    """Return an ended request with a prompt of 4,000 bytes."""
    arrive = Arrive(0, "r", prompt_bytes=4000, prefix_bytes=prefix)
    return Track(arrive, end=End(9, "r", 200, prompt_tokens=prompt, cached_tokens=cached))


def sizes(*rows: tuple[int, float, float, float]) -> PromptSizes:
    """Prompts by step, tokens, most and doubt; each may have begun at step 0."""
    step, tokens, most, doubt = np.array(rows).T
    return PromptSizes(step.astype(np.int64), np.zeros(len(rows), np.int64), tokens, most, doubt)


def room(*tokens: float, noise: float = 5.0) -> StepRoom:
    """Return steps with so much room; it is visible where it is not 0."""
    found = np.array(tokens)
    return StepRoom(found, found > 0.0, np.full(len(found), noise))


def test_the_prefix_that_was_seen_before_is_cached_in_blocks() -> None:
    assert cached_tokens(track(prefix=3000), 1000.0) == 736.0
    assert doubts([track(prefix=3000)], np.array([736.0]))[0] > 16.0
    assert cached_from(track(prefix=3000)) == ESTIMATED


def test_a_report_of_the_engine_is_kept() -> None:
    told = track(prefix=3000, cached=0)
    assert cached_tokens(told, 1000.0) == 0.0
    assert doubts([told], np.array([0.0])).tolist() == [0.0]
    assert cached_from(told) == REPORTED


def test_a_prompt_without_usage_or_comparison_is_unknown() -> None:
    assert cached_from(track()) == UNKNOWN
    assert cached_from(track(prefix=3000, prompt=None)) == UNKNOWN
    assert cached_tokens(track(), 1000.0) == 0.0


def test_at_least_one_token_of_a_prompt_is_computed() -> None:
    assert cached_tokens(track(prefix=4000), 16.0) == 15.0


def test_a_step_that_is_longer_than_its_prompt_explains_computed_more_of_it() -> None:
    found, doubt = computed(sizes((1, 200.0, 1000.0, 30.0)), room(0.0, 700.0))
    assert found.tolist() == [700.0]
    assert doubt[0] == pytest.approx(5.0)


def test_no_more_than_the_prompt_can_have_been_computed() -> None:
    found, _ = computed(sizes((1, 200.0, 400.0, 30.0)), room(0.0, 700.0))
    assert found.tolist() == [400.0]


def test_a_small_difference_is_weighed_against_the_doubt_of_the_prefix() -> None:
    found, doubt = computed(sizes((1, 200.0, 1000.0, 30.0)), room(0.0, 240.0, noise=30.0))
    assert found.tolist() == [220.0]
    assert doubt[0] == pytest.approx(30.0 / np.sqrt(2.0))


def test_known_prompts_keep_their_tokens() -> None:
    prompts = sizes((1, 300.0, 300.0, 0.0), (1, 100.0, 900.0, 30.0))
    found, doubt = computed(prompts, room(0.0, 900.0))
    assert found.tolist() == [300.0, 600.0]
    assert doubt[0] == 0.0


def test_what_the_next_prompt_needs_of_a_step_is_not_given_to_the_one_that_ends_there() -> None:
    prompts = sizes((0, 500.0, 2000.0, 30.0), (1, 1500.0, 1500.0, 0.0))
    found, _ = computed(prompts, room(1000.0, 1000.0))
    assert found.tolist() == [500.0, 1500.0]


def test_a_step_that_shows_no_prompt_bounds_what_it_hides() -> None:
    hidden = StepRoom(np.array([0.0, 100.0]), np.zeros(2, bool), np.full(2, 5.0))
    assert computed(sizes((1, 60.0, 900.0, 30.0)), hidden)[0].tolist() == [60.0]
    assert computed(sizes((1, 600.0, 900.0, 30.0)), hidden)[0].tolist() == [100.0]
