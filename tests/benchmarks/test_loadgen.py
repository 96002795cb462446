"""The load generator's own error, in the form of the peers' table, and what a chunk costs."""

import sys

import pytest

from loadgen.selfcheck import (
    RATES,
    energy_error,
    error_row,
    known_power,
    overload,
    show,
    show_cases,
)

pytestmark = pytest.mark.bench


def test_error_table() -> None:
    rows = [error_row(rate) for rate in RATES]
    sys.stdout.write("\n" + show(rows))
    # CPU time, not wall time: the machine may be busy with other things.
    assert rows[1].client_us_per_chunk < 100
    for row in rows:
        # A row that was not driven must say so: the table never passes for what it is not.
        driven = row.chunks_per_second > 0.7 * row.asked_per_second
        assert driven or row.limit is not None
        if row.limit is None:
            assert row.ttft_ms[0] < 0.5


def test_both_truth_cases() -> None:
    queue, power = overload(), known_power()
    sys.stdout.write("\n" + show_cases(queue, power))
    assert queue.slo_met is False
    assert queue.ttft_seconds.p95 is not None
    assert queue.ttft_from_sent_seconds.p95 is not None
    # Peers report the wait from sent, 53 ms: the queue in front of the cap is hidden there.
    assert queue.ttft_seconds.p95 > 10 * queue.ttft_from_sent_seconds.p95
    error = energy_error(power)
    assert error is not None
    assert abs(error) < 0.01
