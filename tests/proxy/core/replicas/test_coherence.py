import numpy as np
import pytest

from proxy.core.replicas.coherence import distance, distances, engines_among, together


def engine(step_ms: float, phase_ms: float, jitter_ms: float, seed: int, count: int = 5) -> list[np.ndarray]:
    """Return the chunk times (ms) of streams that one engine serves, with steps of about ``step_ms``."""
    rng = np.random.default_rng(seed)
    ends = phase_ms + np.cumsum(step_ms * rng.uniform(0.8, 1.6, 200))
    return [np.sort(ends + rng.random(200) * jitter_ms) for _ in range(count)]


def test_streams_of_one_engine_are_near_and_those_of_two_a_quarter_apart() -> None:
    here, there = engine(10.0, 0.0, 0.1, 1), engine(11.0, 3.0, 0.1, 2)
    assert distance(here[0], here[1]) < 0.02
    assert distance(here[0], there[0]) == pytest.approx(0.25, abs=0.08)


def test_the_distance_of_streams_that_hardly_overlap_is_unknown() -> None:
    first = engine(10.0, 0.0, 0.1, 1)[0]
    assert np.isnan(distance(first, first + 1e6))
    assert np.isnan(distances([first, first + 1e6])[0, 1])


@pytest.mark.parametrize("jitter_ms", [0.1, 3.0])
def test_two_engines_are_distinguished(jitter_ms: float) -> None:
    streams = engine(10.0, 0.0, jitter_ms, 1) + engine(11.0, 3.0, jitter_ms, 2)
    labels = engines_among(distances(streams), 2)
    assert labels is not None
    assert len(set(labels[:5])) == len(set(labels[5:])) == 1
    assert labels[0] != labels[5]


@pytest.mark.parametrize("jitter_ms", [0.1, 3.0, 30.0])
def test_one_engine_is_not_taken_for_two(jitter_ms: float) -> None:
    assert engines_among(distances(engine(10.0, 0.0, jitter_ms, 1, count=10)), 2) is None


def test_more_engines_than_devices_are_not_believed() -> None:
    streams = [s for seed in range(3) for s in engine(10.0 + seed, seed, 0.1, seed)]
    assert engines_among(distances(streams), 3) is not None
    assert engines_among(distances(streams), 2) is None


def test_a_stream_goes_to_the_nearest_engine_that_is_near_enough() -> None:
    assert together([0.2, 0.01, np.nan], 0.1) == 1
    assert together([0.2, np.nan], 0.1) == -1
