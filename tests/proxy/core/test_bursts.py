import numpy as np

from proxy.core.bursts import separating_gap


def test_chunks_read_together_leave_no_step_time_and_still_a_gap() -> None:
    stamps = np.array([0.0, 0.0, 0.0, 0.01, 0.01, 0.02, 0.02, 0.02])
    gap = separating_gap(stamps, step_seconds=0.0)
    assert 0.0 < gap <= 0.01
