from dataclasses import replace

import msgspec
import pytest

from loadgen.results.records import Distribution
from loadgen.selfcheck.checks import (
    ErrorRow,
    capacity,
    energy_error,
    errors_ns,
    known_power,
    show,
    show_cases,
    trusted_range,
)
from loadgen.selfcheck.truth_server import Served
from tests.loadgen.samples import point, record
from tests.timing import Punctuality

ROW = ErrorRow(
    chunks_per_second=3200.0,
    offered_per_second=3200.0,
    nominal_ms=(0.1, 0.3),
    ttft_ms=(0.01, 0.04),
    itl_ms=(0.0, 0.02),
    e2e_ms=(0.01, 0.05),
    server_ms=(0.02, 0.1),
    shared=0.0,
    client_us_per_chunk=12.0,
    server_us_per_chunk=15.0,
    bound=None,
)


def test_errors_are_relative_to_the_records_of_the_server() -> None:
    # The server came to write late, by 3 and by 5; the client saw the first token 2 late, the third 1.
    served = Served(1000, [1053, 1063, 1075])
    one = msgspec.structs.replace(record(0, sent=100, end=176), outputs_ns=[155, 176], counts=[1, 2])
    assert errors_ns(one, served) == (2, [-1], 1)


def test_chunks_that_share_a_read_are_reported() -> None:
    assert "share" not in show([ROW])
    assert "25% of chunks share a read" in show([replace(ROW, shared=0.25)])


def test_a_core_handles_more_chunks_than_requests() -> None:
    found = capacity(16, 0.5)
    assert found.reached_chunks == pytest.approx(16 * found.reached_requests)
    assert 0 < found.reached_requests <= found.requests * 1.05


def test_the_side_that_could_not_sustain_the_load_is_reported() -> None:
    late = replace(ROW, server_ms=(0.1, 7.0))
    bound = replace(ROW, bound="the event loop lagged 9.0 ms (p95)")
    assert (ROW.limit, late.limit) == (None, "the truth server was late")
    text = show([ROW, late, bound])
    assert text.count("generator-bound: do not use") == text.count("the truth server was late") == 1
    assert "up to 3,200 chunks/s" in trusted_range([ROW, late, bound])
    # The client is compared with the records of the server, so that a late server causes no error.
    assert "up to 3,200 chunks/s" in trusted_range([late, bound])
    assert "too busy" in trusted_range([bound])


def test_the_energy_error_uses_the_length_of_the_window() -> None:
    assert energy_error(point(4, joules=500.0, duration_seconds=2.0)) == 0
    assert energy_error(point(4, joules=630.0, duration_seconds=2.0)) == pytest.approx(0.26)
    assert energy_error(point(4)) is None
    assert "energy not measured" in show_cases(point(1), point(4))


def test_a_short_run_on_a_device_of_known_power() -> None:
    """Peers report 26 % too much here: what comes after the window is counted in."""
    with Punctuality() as machine:
        found = known_power(1.5)
    error = energy_error(found)
    assert error is not None
    assert found.idle_watts == pytest.approx(100.0)
    assert "SIMULATED" not in show_cases(msgspec.structs.replace(found, ttft_seconds=Distribution()), found)
    machine.judge(abs(error) < 0.05, f"the energy is off by {error:.1%}")
