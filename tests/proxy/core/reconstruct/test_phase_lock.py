import numpy as np

from proxy.core.reconstruct.bursts import bursts
from proxy.core.reconstruct.phase_lock import blurred, locked, steps_passed
from tests.proxy.core.blurry import blurry


def test_clean_bursts_are_not_blurred() -> None:
    t, _, previous, step = blurry(12, 300, 0.01, 0.0)
    ones = np.ones(len(t))
    assert bursts(t, previous, 0.003).tolist() == step.tolist()
    assert not blurred(step, ones, ones, previous)


def test_bursts_torn_by_delays_are_blurred() -> None:
    t, _, previous, _ = blurry(12, 300, 0.01, 0.003)
    ones = np.ones(len(t))
    assert blurred(bursts(t, previous, 0.001), ones, ones, previous)


def test_lone_chunks_tell_nothing() -> None:
    assert not blurred(np.array([0, 1]), np.ones(2), np.ones(2), np.array([-1, -1]))


def test_steps_of_nothing_but_first_tokens_do_not_blur() -> None:
    # Two streams decode; before their last step a third one's prompt was computed alone.
    burst, previous = np.array([0, 0, 1, 2, 2]), np.array([-1, -1, -1, 0, 1])
    assert not blurred(burst, np.ones(5), np.ones(5), previous)


def test_merged_chunks_that_usage_tells_of_do_not_blur() -> None:
    burst, previous = np.array([0, 2, 3, 5]), np.array([-1, 0, 1, 2])
    assert not blurred(burst, np.ones(4), np.full(4, 5 / 3), previous)


def test_the_streams_own_count_finds_every_step_again() -> None:
    t, stream, _, step = blurry(12, 400, 0.01, 0.004)
    assert np.array_equal(locked(t, stream, np.ones(len(t))), step)


def test_a_stream_that_begins_after_an_idle_time_gets_steps_of_its_own() -> None:
    t = np.array([0.01, 0.02, 0.03, 5.01, 5.02])
    found = locked(t, np.array([0, 0, 0, 1, 1]), np.ones(5))
    assert len(set(found.tolist())) == 5


def test_the_clock_of_all_streams_counts_the_steps_of_a_merged_chunk() -> None:
    t, _, previous, _ = blurry(12, 400, 0.01, 0.001)
    passed = steps_passed(t, np.ones(len(t)), previous)
    later = previous >= 0
    assert np.all(np.abs(passed[later] - 1.0) < 0.5)
    assert np.all(passed[~later] == 1.0)
