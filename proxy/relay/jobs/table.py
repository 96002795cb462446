"""The jobs that run, which backend has each, and polls of those that no client polls.

A job's requests go to the backend that has it; the table is that of one worker. A job that another worker
accepted, or that is older than this process, is searched for: ``exchange.choice``.

The states come from the clients' own polls, and, where none came for ``job_poll_seconds``, from a GET of the
proxy's with the credentials of the POST. A job ends with its state, with a DELETE, when its backend does not
have it any more (404, 410: expired), or after ``job_timeout_seconds`` without any state.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from proxy.api.jobs import JobState, read_job
from proxy.clock import now_ns
from proxy.config import RelayConfig
from proxy.relay.http.heads import RequestHead
from proxy.relay.jobs.progress import JobProgress
from proxy.relay.jobs.units import units_of
from proxy.relay.request_meter import RequestMeter
from proxy.relay.upstreams.balancer import Slot
from proxy.relay.upstreams.connections import ConnectionPool
from proxy.relay.upstreams.health_checks import get
from proxy.schema import Units
from proxy.units import ns_from_seconds

GONE: Final = (404, 410)
_CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))
_MAX_KNOWN: Final = 65_536  # jobs whose backend is kept, ended ones included
_log = logging.getLogger(__name__)


class Job:
    """One job; created with its POST, it has an ``id`` once the backend accepted it."""

    def __init__(self, table: "JobTable", slot: Slot, head: RequestHead, path: str, sent_ns: int) -> None:
        self._table = table
        self.id = ""
        self.slot = slot
        self.path = path.rstrip("/")  # of the POST; then of the job
        self.headers = b"".join(
            b"%b: %b\r\n" % (name, value) for name, value in head.headers if name.lower() in _CREDENTIALS
        )
        self.progress = JobProgress(sent_ns)
        self.units = Units()
        self.request_meter: RequestMeter | None = None
        self.seen_ns = sent_ns  # when a state was received
        self.polled_ns = sent_ns  # when the proxy polled it
        self.ended = False

    def accept(self, request_meter: RequestMeter, state: JobState) -> bool:
        """Open the job that the response to its POST describes; False where it describes none that runs."""
        if state.id is None or not state.has_usable_id or not state.runs:
            return False
        self.id, self.request_meter = state.id, request_meter
        self.path = f"{self.path.removesuffix('/remix').rpartition('/videos')[0]}/videos/{state.id}"
        self._table.open(self, state)
        return True


class JobTable:
    """Jobs of one worker, by id; ``pools`` is read when a job is polled."""

    def __init__(self, config: RelayConfig, pools: Mapping[Slot, ConnectionPool]) -> None:
        self._config = config
        self._pools = pools
        self._running: dict[str, Job] = {}
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def reconfigure(self, config: RelayConfig) -> None:
        """Apply new settings."""
        self._config = config

    def open(self, job: Job, state: JobState) -> None:
        """Add a job that its backend accepted; one that runs under the same id can no longer be followed."""
        if (older := self._running.get(job.id)) is not None:
            self._end(older, "job_lost", cancelled=True)
        self.remember(job.id, job.slot)
        self._running[job.id] = job
        self.observe(job, 200, state, now_ns())

    def remember(self, job_id: str, slot: Slot) -> None:
        """Keep which backend has a job."""
        self._slots[job_id] = slot
        self._slots.move_to_end(job_id)
        if len(self._slots) > _MAX_KNOWN:
            self._slots.popitem(last=False)

    def slot_of(self, job_id: str) -> Slot | None:
        """Return the backend that has a job; None where that is not known, or it was removed."""
        slot = self._slots.get(job_id)
        return slot if slot in self._pools else None

    def running(self, job_id: str) -> Job | None:
        """Return a job that runs; None for any other id."""
        return self._running.get(job_id)

    def observe(self, job: Job, status: int | None, state: JobState | None, t_ns: int) -> None:
        """Apply a response to a request about the job: its status code, and the state in its body."""
        if job.ended:
            return
        if status in GONE:
            self._end(job, "job_gone", cancelled=True)
            return
        if status is None or status >= 300 or state is None:
            return
        job.seen_ns = t_ns
        job.units = units_of(state, job.units)
        if state.completed:
            self._end(job, None)
        elif state.failed:
            self._end(job, "job_failed")
        elif state.cancelled:
            self._end(job, "cancelled", cancelled=True)
        elif job.request_meter is not None:
            job.progress.see(t_ns, state)
            job.request_meter.report_job(t_ns, job.progress.started_ns, job.progress.end_ns)

    def _end(self, job: Job, error: str | None, *, cancelled: bool = False) -> None:
        job.ended = True
        self._running.pop(job.id, None)
        if job.request_meter is not None:
            job.request_meter.end_job(job.units, error, cancelled=cancelled)

    def sweep(self, t_ns: int) -> None:
        """Poll jobs that no client polls; end those without a state for too long, or without a backend."""
        if not self._running:
            return
        every = ns_from_seconds(self._config.job_poll_seconds)
        longest = ns_from_seconds(self._config.job_timeout_seconds)
        for job in tuple(self._running.values()):
            if t_ns - job.seen_ns >= longest or job.slot not in self._pools:
                _log.warning(
                    "job %s: no state of it for %g s, or its backend was removed: its record ends here",
                    job.id,
                    self._config.job_timeout_seconds,
                )
                self._end(job, "job_lost", cancelled=True)
            elif every and t_ns - max(job.seen_ns, job.polled_ns) >= every:
                job.polled_ns = t_ns
                task = asyncio.get_running_loop().create_task(self._poll(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _poll(self, job: Job) -> None:
        try:
            status, body = await get(
                self._pools[job.slot], job.path, self._config.health_timeout_seconds, job.headers
            )
        except (OSError, ValueError) as error:
            _log.info("job %s: its state cannot be read: %s", job.id, error)
            return
        self.observe(job, status, read_job(body), now_ns())

    def close(self) -> None:
        """Stop polling."""
        for task in tuple(self._tasks):
            task.cancel()
