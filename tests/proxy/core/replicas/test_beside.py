import numpy as np
import pytest

from proxy.core.reconstruct.bursts import Floats
from proxy.core.replicas.beside import clearly_nearest, life_of, mean_at, mean_distance

STEPS: Floats = np.arange(40, dtype=np.float64) * 1e7


def test_a_stream_is_near_those_of_its_engine_and_not_compared_with_itself() -> None:
    own, near, far = STEPS + 1e4, STEPS, STEPS + 4e6
    assert mean_distance(own, [life_of(own), life_of(near)]) == pytest.approx(0.001, rel=0.1)
    assert mean_distance(own, [life_of(far)]) == pytest.approx(0.4, rel=0.05)
    assert np.isnan(mean_distance(own, [life_of(STEPS + 1e9)]))


def test_a_single_chunk_belongs_to_the_engine_in_whose_step_it_was_emitted() -> None:
    engines = [[life_of(STEPS), life_of(STEPS + 2e4)], [life_of(STEPS + 4e6), life_of(STEPS + 4.1e6)]]
    assert clearly_nearest([5e7 + 1e4], engines, 0.5) == 0
    assert clearly_nearest([5.41e7], engines, 0.5) == 1
    assert clearly_nearest([5.205e7], engines, 0.5) == -1


def test_a_chunk_at_which_an_engine_had_hardly_a_stream_is_not_judged() -> None:
    engines = [[life_of(STEPS), life_of(STEPS)], [life_of(STEPS + 4e6)]]
    assert clearly_nearest([5e7], engines, 0.5) == -1
    assert mean_at([1e12], engines[0]) == 0.25
