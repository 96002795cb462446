import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.energy.counters import Counter, between
from loadgen.results.records import EnergyTotals

MS = 1_000_000


def sampled(watts: float, update_ms: int, until_ms: int = 3000, read_ms: int = 10) -> Counter:
    """Return the counter of a device of constant power that changes every ``update_ms``."""
    counter = Counter("gpu0")
    for t in range(0, until_ms, read_ms):
        counter.read(t * MS, round(watts * (t // update_ms * update_ms)))
    return counter


@given(st.integers(20, 100), st.integers(300, 900), st.integers(100, 1500))
def test_a_window_of_known_power_has_its_energy(update_ms: int, start_ms: int, length_ms: int) -> None:
    found = between([sampled(200.0, update_ms)], start_ms * MS, (start_ms + length_ms) * MS, "nvml")
    assert isinstance(found, EnergyTotals)
    # Each edge is known to half a reading's distance: no grace period, no lost edges.
    assert found.joules == pytest.approx(0.2 * length_ms, abs=200 * 0.011)
    assert found.seconds == pytest.approx(length_ms / 1000)
    assert found.parts == {}


def test_unknown_energy_has_a_reason() -> None:
    still = Counter("gpu0")
    still.read(0, 5)
    still.read(MS, 5)
    assert "did not change" in str(between([still], 0, MS, "nvml"))
    assert "did not change" in str(between([sampled(100, 50)], 100 * MS, 4000 * MS, "nvml"))
    back = sampled(100.0, 50)
    back.read(3001 * MS, 3)
    assert "went backwards" in str(between([back], 500 * MS, 900 * MS, "nvml"))
    assert between([], 0, MS, "nvml") == "no devices"
    assert between([sampled(100, 50)], 900 * MS, 900 * MS, "nvml") == "the window is empty"


def test_what_is_covered() -> None:
    counter = sampled(100.0, 50)
    assert counter.covers(2900 * MS)
    assert not counter.covers(3500 * MS)
