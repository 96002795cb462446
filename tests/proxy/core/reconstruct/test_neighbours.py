import numpy as np
import pytest

from proxy.core.activity.outputs import Streams
from proxy.core.activity.tracks import Group
from proxy.core.reconstruct.neighbours import after_neighbours
from tests.proxy.core.scene import MS, add


def group(outputs_ms: list[float]) -> Group:
    """Return an engine beside another one on its device, whose chunks came at ``outputs_ms``."""
    streams = Streams()
    here, other = (Group(("gpu0", name), ("gpu0",), streams) for name in "ab")
    here.neighbours = [other]
    add(other, "r", 0.0, tuple(outputs_ms))
    return here


def test_a_step_begins_when_the_neighbour_ended_its_own() -> None:
    stamps = np.linspace(0.03, 0.9, 30)
    here = group([30.0 * number - 12.0 - number % 3 for number in range(1, 31)])
    begins = after_neighbours(here, 0, stamps - 0.03, stamps)
    assert stamps - begins == pytest.approx([0.012 + number % 3 * 1e-3 for number in range(1, 31)])


def test_engines_that_compute_at_once_keep_their_own_time() -> None:
    stamps = np.linspace(0.03, 1.2, 40)
    here = group([7.3 * number for number in range(1, 160)])
    assert after_neighbours(here, 0, stamps - 0.03, stamps).tolist() == (stamps - 0.03).tolist()


def test_without_neighbours_or_steps_nothing_changes() -> None:
    stamps = np.array([0.01, 0.02])
    alone = Group(("gpu0", "a"), ("gpu0",), Streams())
    assert after_neighbours(alone, MS, stamps - 0.01, stamps).tolist() == (stamps - 0.01).tolist()
    none = np.empty(0)
    assert len(after_neighbours(group([1.0]), 0, none, none)) == 0
