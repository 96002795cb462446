from dataclasses import replace

import msgspec
import pytest

from loadgen.records import Distribution
from loadgen.selfcheck import ErrorRow, believed, energy_error, known_power, show, show_cases
from tests.loadgen.made import point

ROW = ErrorRow(3200.0, 3200.0, (0.1, 0.3), (0.0, 0.2), (0.05, 0.1), (0.02, 0.1), 12.0, 15.0, None)


def test_says_which_side_could_not_keep_up() -> None:
    late = replace(ROW, server_ms=(0.1, 7.0))
    bound = replace(ROW, bound="the event loop lagged 9.0 ms (p95)")
    assert (ROW.limit, late.limit) == (None, "the truth server was late")
    text = show([ROW, late, bound])
    assert text.count("generator-bound: do not use") == text.count("the truth server was late") == 1
    assert "up to 3,200 chunks/s" in believed([ROW, late, bound])
    assert "too busy" in believed([late, bound])


def test_energy_is_judged_by_the_windows_own_length() -> None:
    assert energy_error(point(4, joules=500.0, duration_seconds=2.0)) == 0
    assert energy_error(point(4, joules=630.0, duration_seconds=2.0)) == pytest.approx(0.26)
    assert energy_error(point(4)) is None
    assert "energy not measured" in show_cases(point(1), point(4))


def test_a_short_run_on_a_device_of_known_power() -> None:
    """Peers report 26 % too much here: what comes after the window is counted in."""
    found = known_power(1.5)
    error = energy_error(found)
    assert error is not None
    assert abs(error) < 0.05
    assert found.idle_watts == pytest.approx(100.0)
    assert "SIMULATED" not in show_cases(msgspec.structs.replace(found, ttft_seconds=Distribution()), found)
