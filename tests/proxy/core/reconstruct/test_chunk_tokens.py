import numpy as np

from proxy.core.reconstruct.chunk_tokens import chunks_of, missing_tokens, sized
from tests.proxy.core.scene import add, ended, group

R0 = np.zeros(4, np.int64)


def test_what_usage_tells_beyond_the_chunks_is_missing() -> None:
    here = group()
    tracks = [
        add(here, "exact", 0, (10, 20), ended("exact", 21, out=2)),
        add(here, "merged", 0, (10, 20), ended("merged", 21, out=5)),
        add(here, "unsized", 0, (10, 20), ended("unsized", 21, out=5), tokens=-1),
        add(here, "running", 0, (10, 20)),
    ]
    missing = missing_tokens(here, tracks)
    assert missing[:3].tolist() == [0.0, 3.0, 3.0]
    assert np.isnan(missing[3])


def test_chunks_of_answers_that_miss_tokens_are_uncertain() -> None:
    tokens, request = np.array([1, 2, -1, 1]), np.array([0, 0, 1, 2])
    chunks = chunks_of(tokens, request, np.array([0.0, np.nan, 3.0]), np.array([2, 1, 1]))
    assert chunks.counted.tolist() == [1.0, 2.0, 1.0, 1.0]
    assert chunks.uncertain.tolist() == [False, False, True, True]
    assert chunks.expected.tolist() == [1.0, 2.0, 1.0, 4.0]


def test_missing_tokens_are_where_steps_passed_unseen() -> None:
    chunks = chunks_of(np.array([1, 1, 1, 1]), R0, np.array([2.0]), np.array([4]))
    held = sized(chunks, R0, np.array([0, 1, 4, 5]), np.array([-1, 0, 1, 2]))
    assert held.tolist() == [1.0, 1.0, 3.0, 1.0]


def test_where_no_step_passed_unseen_they_are_everywhere() -> None:
    chunks = chunks_of(np.array([1, 1, 1, 1]), R0, np.array([4.0]), np.array([4]))
    held = sized(chunks, R0, np.array([0, 1, 2, 3]), np.array([-1, 0, 1, 2]))
    assert held.tolist() == [2.0] * 4


def test_nothing_missing_nothing_changed() -> None:
    chunks = chunks_of(np.array([1, 3]), R0[:2], np.array([0.0]), np.array([2]))
    assert sized(chunks, R0[:2], np.array([0, 3]), np.array([-1, 0])).tolist() == [1.0, 3.0]
    empty = chunks_of(R0[:0], R0[:0], np.empty(0), R0[:0])
    assert sized(empty, R0[:0], R0[:0], R0[:0]).tolist() == []


def test_an_answer_that_misses_tokens_keeps_those_its_chunks_counted() -> None:
    chunks = chunks_of(np.array([1, 5]), R0[:2], np.array([1.0]), np.array([2]))
    assert chunks.expected.tolist() == [1.5, 5.5]
    assert sized(chunks, R0[:2], np.array([0, 5]), np.array([-1, 0])).sum() == 7.0
