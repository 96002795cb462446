"""The load generator's own error, in the form of the peers' table."""

import sys

import pytest

from loadgen.selfcheck import RATES, error_row, overload, show

pytestmark = pytest.mark.bench


def test_error_table_and_overload() -> None:
    rows = [error_row(rate) for rate in RATES]
    queue = overload()
    sys.stdout.write("\n" + show(rows, queue))
    assert abs(rows[0].itl_p50_ms) < 0.5
    assert not rows[0].generator_bound
    assert queue.slo_met is False
    assert queue.ttft_seconds.p95 is not None
    assert queue.ttft_from_sent_seconds.p95 is not None
    # Peers report the wait from sent, 53 ms: the queue in front of the cap is hidden there.
    assert queue.ttft_seconds.p95 > 10 * queue.ttft_from_sent_seconds.p95
