"""Several workers as one load generator: they start together, and their records are merged.

The workers share one schedule round-robin, so that the combined arrivals are those of the specification.
Percentiles are of all records, never averages of percentiles. If a worker dies, the point ends with the
records of the others and a note.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from loadgen.config.spec import Config
from loadgen.drive.attack import Outcome, Progress
from loadgen.drive.preflight import PreflightError
from loadgen.fleet.remote import Remote, WorkerError
from loadgen.fleet.worker import Job
from proxy.units import NS_PER_MS

_LEAD_NS: Final = 100 * NS_PER_MS  # from the command to start until the start
_ROUNDS: Final = 9  # readings of a worker's clock
_POLL_S: Final = 0.2  # between progress queries
_NOTED_NS: Final = NS_PER_MS // 10  # larger clock errors are noted


@dataclass(frozen=True, slots=True)
class Offset:
    """A worker's clock minus the local one, and the error bound (half a round trip), nanoseconds."""

    ns: int
    error_ns: int


class Fleet:
    """Workers that are ready; call ``close`` at the end."""

    def __init__(self, workers: Sequence[Remote], offsets: Sequence[Offset]) -> None:
        self.workers = workers
        self.offsets = offsets

    def attack(self, number: int, level: float) -> "FleetAttack":
        """Return the attack of one point over all workers."""
        return FleetAttack(self, number, level)

    async def close(self) -> None:
        """Stop all workers."""
        await asyncio.gather(*(worker.close() for worker in self.workers), return_exceptions=True)


async def fleet(config: Config, model: str, run_id: str) -> Fleet | None:
    """Start the workers of a run; None if it has one worker only. Raises ``PreflightError``."""
    spec = config.spec
    if spec.ray is None and spec.workers == 1:
        return None
    job = Job(spec, model, run_id, config.header_lines(), 0, spec.workers)
    try:
        if spec.ray is None:
            from loadgen.fleet.subprocesses import start_workers  # noqa: PLC0415  # only with --workers

            workers: Sequence[Remote] = await start_workers(job)
        else:
            from loadgen.fleet.ray_actors import start_actors  # noqa: PLC0415  # an extra

            workers = await start_actors(job, spec.ray)
        return Fleet(workers, [await offset_of(worker) for worker in workers])
    except WorkerError as error:
        raise PreflightError(str(error)) from error


async def offset_of(worker: Remote) -> Offset:
    """Measure the offset of a worker's clock: the fastest of several readings (clock filter of RFC 5905)."""
    best: Offset | None = None
    for _ in range(_ROUNDS):
        before = time.monotonic_ns()
        theirs = await worker.clock()
        half = (time.monotonic_ns() - before) // 2
        if best is None or half < best.error_ns:
            best = Offset(theirs - (before + half), half)
    assert best is not None
    # Workers of one host share its monotonic clock: an offset within the error is zero.
    return Offset(0, 0) if abs(best.ns) <= best.error_ns else best


@dataclass(slots=True)
class FleetAttack:
    """One point of several workers, with the interface of :class:`loadgen.drive.attack.Attack`."""

    fleet: Fleet
    number: int
    level: float
    progress: Progress = field(default_factory=Progress)
    _interrupted: bool = False
    _interrupting: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> Outcome:
        """Run the point and merge the outcomes. Raises ``PreflightError`` if a worker cannot prepare it."""
        workers = self.fleet.workers
        try:
            await asyncio.gather(*(worker.prepare(self.number, self.level) for worker in workers))
        except WorkerError as error:
            raise PreflightError(str(error)) from error
        start_ns = time.monotonic_ns() + _LEAD_NS
        parts = [
            asyncio.ensure_future(self._part(worker, start_ns + offset.ns))
            for worker, offset in zip(workers, self.fleet.offsets, strict=True)
        ]
        if self._interrupted:  # during the preparation
            self.interrupt()
        watching = asyncio.ensure_future(self._watch())
        try:
            found = await asyncio.gather(*parts)
        finally:
            watching.cancel()
        lost = tuple(str(part) for part in found if isinstance(part, WorkerError))
        outcomes = [part for part in found if isinstance(part, Outcome)]
        return merge(start_ns, outcomes, (*lost, *self._clocks()), complete=not lost)

    async def _part(self, worker: Remote, start_ns: int) -> Outcome | WorkerError:
        try:
            return await worker.go(start_ns)
        except WorkerError as error:
            self.interrupt()  # the others alone are not the specified load
            return error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            found = await asyncio.gather(*(w.progress() for w in self.fleet.workers), return_exceptions=True)
            parts = [part for part in found if isinstance(part, Progress)]
            for name in ("sent", "ended", "failed", "in_flight", "tokens"):
                setattr(self.progress, name, sum(getattr(part, name) for part in parts))
            self.progress.elapsed_ns = max((part.elapsed_ns for part in parts), default=0)

    def interrupt(self) -> None:
        """End the point now on all workers."""
        self._interrupted = True
        for worker in self.fleet.workers:
            task = asyncio.get_running_loop().create_task(_interrupt(worker))
            self._interrupting.add(task)
            task.add_done_callback(self._interrupting.discard)

    def _clocks(self) -> list[str]:
        return [
            f"{worker.name}: the offset of its clock is known to +- {offset.error_ns / NS_PER_MS:.1f} ms"
            for worker, offset in zip(self.fleet.workers, self.fleet.offsets, strict=True)
            if offset.error_ns > _NOTED_NS
        ]


async def _interrupt(worker: Remote) -> None:
    try:
        await worker.interrupt()
    except WorkerError:
        return  # it died, which its outcome reports


def merge(
    start_ns: int, parts: Sequence[Outcome], notes: tuple[str, ...] = (), *, complete: bool = True
) -> Outcome:
    """Merge the outcomes of all workers; lags and CPU share are those of the worst worker.

    Times of an outcome are relative to its start, so they need no conversion between clocks. If a worker is
    missing (not ``complete``), the point is marked as interrupted even if the others reached its end.
    """
    worst = max(parts, key=lambda part: sum(part.lags_ns), default=None)
    records = [record for part in parts for record in part.records]
    return Outcome(
        start_ns=start_ns,
        sending_end_ns=max((part.sending_end_ns for part in parts), default=1),
        end_ns=max((part.end_ns for part in parts), default=1),
        records=sorted(records, key=lambda record: record.index),
        lags_ns=[] if worst is None else worst.lags_ns,
        cpu_share=max((part.cpu_share for part in parts), default=0.0),
        interrupted=not complete or any(part.interrupted for part in parts),
        capped=sum(part.capped for part in parts),
        notes=(*notes, *dict.fromkeys(note for part in parts for note in part.notes)),
    )
