import numpy as np

from proxy.core.reconstruct.bursts import (
    bursts,
    by_stream,
    paces,
    previous_of_stream,
    separating_gap,
    steps_apart,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_events_are_brought_together_by_stream_in_order_of_time() -> None:
    assert by_stream(ints(1, 0, 1, 0)).tolist() == [1, 3, 0, 2]
    assert by_stream(ints(1 << 40, 0, 1 << 40)).tolist() == [1, 0, 2]
    assert by_stream(ints()).tolist() == []


def test_an_event_knows_its_streams_last() -> None:
    stream = ints(0, 1, 0, 0, 1)
    assert previous_of_stream(stream, by_stream(stream)).tolist() == [-1, -1, 0, 2, 1]


def test_pace_is_seconds_a_step_and_unknown_for_a_first_chunk() -> None:
    pace = paces(np.array([0.0, 0.02, 0.06]), np.array([1.0, 1.0, 2.0]), ints(-1, 0, 1))
    assert np.isnan(pace[0])
    assert np.allclose(pace[1:], 0.02)


def test_merged_chunks_are_as_many_steps_as_tokens() -> None:
    gaps = np.tile([0.01, 0.01, 0.02], 20)
    t = np.concatenate([[0.0], np.cumsum(gaps)])
    tokens = np.concatenate([[1.0], np.tile([1.0, 1.0, 2.0], 20)])
    previous = np.arange(-1, len(t) - 1)
    assert steps_apart(t, tokens, previous) is tokens


def test_speculated_chunks_are_one_step_whatever_they_hold() -> None:
    t = np.linspace(0.0, 0.6, 61)
    tokens = np.concatenate([[1.0], np.tile([1.0, 3.0], 30)])
    previous = np.arange(-1, 60)
    assert steps_apart(t, tokens, previous).tolist() == [1.0] * 61


def test_too_few_chunks_tell_nothing_of_speculation() -> None:
    tokens = np.array([1.0, 2.0, 2.0])
    assert steps_apart(np.arange(3.0), tokens, ints(-1, 0, 1)) is tokens


def test_the_gap_lies_in_the_valley_between_bursts_and_steps() -> None:
    rng = np.random.default_rng(0)
    t = np.sort(np.concatenate([step * 0.02 + rng.uniform(0, 3e-4, 16) for step in range(200)]))
    assert 3e-4 < separating_gap(t, 0.02) < 0.018


def test_without_a_valley_the_gap_is_a_part_of_the_pace() -> None:
    assert separating_gap(np.array([0.0]), 0.02) == 0.3 * 0.02
    assert separating_gap(np.array([0.0, 0.01, 0.02]), 10.0) <= 0.01


def test_a_burst_ends_at_a_gap() -> None:
    t = np.array([0.0, 0.001, 0.02, 0.021])
    assert bursts(t, ints(-1, -1, 0, 1), 0.01).tolist() == [0, 0, 1, 1]


def test_a_burst_ends_where_a_stream_emits_again() -> None:
    t = np.array([0.0, 0.001, 0.002, 0.003])
    assert bursts(t, ints(-1, -1, 0, 1), 0.01).tolist() == [0, 0, 1, 1]


def test_no_events_are_no_bursts() -> None:
    assert bursts(np.empty(0), ints(), 0.01).tolist() == []
