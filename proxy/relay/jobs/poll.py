# Compiled by mypyc: see setup.py.
"""A client's own request about a job that runs: its response is read for the job's state."""

from proxy.api.jobs import JobState
from proxy.clock import now_ns
from proxy.relay.jobs.table import GONE, Job, JobTable
from proxy.relay.request_meter import RequestMeter


class JobPoll(RequestMeter):
    """Represents the job where a response is read: energy added to that response is the job's.

    It reports nothing of its own to the meter.
    """

    def __init__(self, table: JobTable, job: Job, of: RequestMeter, *, deletes: bool) -> None:
        """``of``: the job's. ``deletes``: the request is a DELETE, whose response may have no body."""
        super().__init__(of.link, of.arrive, None, None)
        self.key = of.key
        self.reading.reads_job = True
        self._table = table
        self._polled = job
        self._deletes = deletes

    def chunk(self, t_ns: int, tokens: int) -> None:
        """Ignore tokens: a state has none."""

    def close(self, status: int | None, error: str | None = None, *, cancelled: bool = False) -> None:
        """Apply the state in the response to the job; a request that failed shows nothing of it."""
        if cancelled or (error is not None and status not in GONE):
            return
        state = self.reading.job
        if state is None and self._deletes:
            state = JobState(deleted=True)
        self._table.observe(self._polled, status, state, now_ns())
