import numpy as np

from proxy.core.reconstruct.cells import EngineProfile
from proxy.core.reconstruct.chunk_tokens import Chunks
from proxy.core.reconstruct.clustering import clustered, streams_of
from tests.proxy.core.blurry import blurry


def sure(count: int) -> Chunks:
    return Chunks(np.ones(count), np.ones(count), np.zeros(count, bool))


def test_clean_streams_are_clustered_by_their_bursts() -> None:
    t, stream, previous, step = blurry(6, 200, 0.02, 0.0)
    profile = EngineProfile()
    found = clustered(t, stream, sure(len(t)), profile)
    assert np.array_equal(found.burst, step)
    assert np.array_equal(found.previous, previous)
    assert np.allclose(found.stamps, 0.02 * (np.arange(200) + 1), atol=1e-6)
    assert np.isclose(profile.step_seconds, 0.02, rtol=1e-3)


def test_blurred_streams_are_locked() -> None:
    t, stream, _, step = blurry(12, 300, 0.01, 0.004)
    assert np.array_equal(clustered(t, stream, sure(len(t)), EngineProfile()).burst, step)


def test_blurred_streams_of_unknown_sizes_are_locked_by_the_clock() -> None:
    t, stream, _, step = blurry(12, 300, 0.01, 0.002)
    unsized = Chunks(np.ones(len(t)), np.ones(len(t)), np.ones(len(t), bool))
    found = clustered(t, stream, unsized, EngineProfile())
    assert np.mean(np.abs(found.burst - step) <= 1) > 0.99
    assert len(found.stamps) == found.burst.max() + 1


def test_nothing_is_nothing() -> None:
    found = clustered(np.empty(0), np.empty(0, np.int64), sure(0), EngineProfile())
    assert len(found.burst) == len(found.stamps) == 0


def test_chunks_read_together_are_no_step_of_no_length() -> None:
    t = np.array([0.0, 0.0, 0.0, 0.0, 0.02, 0.02, 0.02, 0.02])
    profile = EngineProfile()
    found = clustered(t, np.zeros(8, np.int64), sure(8), profile)
    assert profile.step_seconds == 0.02
    assert found.burst.tolist() == list(range(8)), "each token of a stream is a step of its own"


def test_all_answers_of_a_request_are_in_the_step_that_emitted_them() -> None:
    # Request 0 has three answers, request 1 has one; a step of 20 ms emits four chunks.
    step = np.repeat(np.arange(50), 4)
    t = 0.02 * (step + 1) + np.tile([0.0, 2e-5, 4e-5, 6e-5], 50)
    request = np.tile([0, 1, 0, 0], 50)
    samples = np.array([3, 1])
    stream = streams_of(request, samples)
    found = clustered(t, stream, sure(len(t)), EngineProfile(), samples[request] == 1)
    assert np.array_equal(found.burst, step)
    assert streams_of(request, np.ones(2, np.int64)) is request
