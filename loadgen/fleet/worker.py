"""One worker of several: its share of every point, started and stopped by the leader.

The same class is called over a pipe (``subprocesses``) or as a Ray actor (``ray_actors``). It has its own
clock: the leader measures the offset and gives start times on the worker's clock.
"""

import platform
import time

import msgspec

from loadgen.client.http_client import Client, Target
from loadgen.config.spec import Spec
from loadgen.drive.attack import Attack, Outcome, Progress
from loadgen.drive.garbage_collection import no_collections
from loadgen.drive.planning import make_workload, plan, read_inputs, request_ids, warm_connections


class Job(msgspec.Struct, frozen=True):
    """The run, and the share of one worker: every ``workers``-th request from number ``worker`` on."""

    spec: Spec
    model: str
    run_id: str
    headers: bytes
    worker: int
    workers: int


class Worker:
    """Executes the calls of the leader; sends nothing by itself."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._inputs = read_inputs(job.spec)
        self._client: Client | None = None
        self._attack: Attack | None = None

    async def host(self) -> str:
        """Return the host name."""
        return platform.node()

    async def clock(self) -> int:
        """Return the monotonic clock of this process, nanoseconds."""
        return time.monotonic_ns()

    async def prepare(self, number: int, level: float) -> None:
        """Prepare a point: schedule, workload and connections."""
        job = self._job
        inputs = self._inputs
        spec, share = job.spec, (job.worker, job.workers)
        if self._client is None:
            self._client = Client(Target(spec.url))
        lengths, pacer = plan(spec, level, *share, inputs.trace)
        await self._client.warm(warm_connections(spec, level, *share))
        self._attack = Attack(
            self._client,
            make_workload(spec, job.model, lengths, number, inputs.items, inputs.tokenizer),
            pacer,
            number,
            request_ids(job.run_id, number),
            job.headers,
            spec.drain_seconds,
            first_index=job.worker,
            stride=job.workers,
            tokenizer=inputs.tokenizer,
            timeout_s=spec.request_timeout_seconds,
            silence_s=spec.silence_seconds,
        )

    async def go(self, start_ns: int) -> Outcome:
        """Run the prepared point from ``start_ns`` of the local clock; return its outcome."""
        attack = self._attack
        assert attack is not None
        with no_collections():
            return await attack.run(start_ns)

    async def progress(self) -> Progress:
        """Return the progress of the point."""
        return Progress() if self._attack is None else self._attack.progress

    async def interrupt(self) -> None:
        """End the point now."""
        if self._attack is not None:
            self._attack.interrupt()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
