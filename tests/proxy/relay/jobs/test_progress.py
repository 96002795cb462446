"""When the work of a job began is found from its states."""

import pytest

from proxy.api.jobs import JobState
from proxy.relay.jobs.progress import JobProgress
from proxy.units import NS_PER_SECOND

S = NS_PER_SECOND
QUEUED = JobState(status="queued")


def running(percent: float | None = None) -> JobState:
    return JobState(status="in_progress", progress=percent)


def test_a_job_that_waits_has_not_begun() -> None:
    progress = JobProgress(0)
    progress.see(5 * S, QUEUED)
    assert (progress.started_ns, progress.end_ns) == (None, None)


def test_without_progress_it_began_between_the_looks() -> None:
    progress = JobProgress(0)
    progress.see(5 * S, QUEUED)
    progress.see(10 * S, running())
    progress.see(15 * S, running())
    assert (progress.started_ns, progress.end_ns) == (7.5 * S, None)


def test_progress_is_extended_to_its_begin_and_its_end() -> None:
    progress = JobProgress(0)
    for seconds, state in ((5, QUEUED), (10, running(15)), (20, running(40)), (30, running(65))):
        progress.see(seconds * S, state)
    # from 15 to 65 % in 20 s: 40 s in all
    assert progress.started_ns == 5 * S, "not before it was seen to wait"
    assert progress.end_ns == pytest.approx(44 * S)
    progress = JobProgress(0)
    for seconds, state in ((5, QUEUED), (10, running(5)), (20, running(30))):
        progress.see(seconds * S, state)
    assert progress.started_ns == pytest.approx(8 * S)


@pytest.mark.parametrize("second", [50.0, 30.0, None])
def test_progress_that_does_not_advance_changes_nothing(second: float | None) -> None:
    progress = JobProgress(0)
    progress.see(10 * S, running(50))
    progress.see(20 * S, running(second))
    assert (progress.started_ns, progress.end_ns) == (5 * S, None)


@pytest.mark.parametrize("second", [10.000000000000002, 10.00001])
def test_progress_that_hardly_advances_gives_no_end(second: float) -> None:
    progress = JobProgress(0)
    for seconds, state in ((5, QUEUED), (10, running(10.0)), (15, running(second))):
        progress.see(seconds * S, state)
    assert progress.end_ns is None
