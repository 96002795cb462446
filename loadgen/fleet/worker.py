"""One of several load generators: its part of every point, started and stopped by the one that leads.

The same object is driven over a pipe (``workers.py``) or as a Ray actor (``rayworkers.py``). Its clock is its
own: the leader asks for it, and says when to start in it.
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
    """What a worker has to know once: the run, and which part of it is its own."""

    spec: Spec
    model: str
    run_id: str
    headers: bytes
    worker: int
    workers: int


class Worker:
    """Obeys its leader. Nothing here begins by itself, so nothing is sent that was not asked for."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._inputs = read_inputs(job.spec)
        self._client: Client | None = None
        self._attack: Attack | None = None

    async def host(self) -> str:
        """The name of the machine it runs on."""
        return platform.node()

    async def clock(self) -> int:
        """The monotonic clock here, nanoseconds."""
        return time.monotonic_ns()

    async def prepare(self, number: int, level: float) -> None:
        """Make the schedule, the first request and the connections of a point."""
        job = self._job
        inputs = self._inputs
        spec, deal = job.spec, (job.worker, job.workers)
        if self._client is None:
            self._client = Client(Target(spec.url))
        lengths, pacer = plan(spec, level, *deal, inputs.trace)
        await self._client.warm(warm_connections(spec, level, *deal))
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
        """Do the point, from ``start_ns`` of the clock of this machine."""
        attack = self._attack
        assert attack is not None
        with no_collections():
            return await attack.run(start_ns)

    async def progress(self) -> Progress:
        """How far the point is."""
        return Progress() if self._attack is None else self._attack.progress

    async def interrupt(self) -> None:
        """End the point now, with what there is."""
        if self._attack is not None:
            self._attack.interrupt()

    async def close(self) -> None:
        """Drop the connections."""
        if self._client is not None:
            await self._client.close()
