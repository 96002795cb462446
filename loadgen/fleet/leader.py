"""Several workers as one load generator: they start together, and their records are merged.

The schedule is one, dealt out in turn, so the joint process is the one asked for; percentiles are of all
records, never averaged. A worker that dies ends the point, which says so and keeps what the others have.
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

_LEAD_NS: Final = 100 * NS_PER_MS  # from the order to start to the start
_ROUNDS: Final = 9  # of asking for a worker's clock
_LOOK_S: Final = 0.2
_SAID_NS: Final = NS_PER_MS // 10  # a clock known better than that needs no word


@dataclass(frozen=True, slots=True)
class Offset:
    """A worker's clock minus ours, and by how much that may be off (half a round trip), nanoseconds."""

    ns: int
    error_ns: int


class Fleet:
    """Workers that are ready."""

    def __init__(self, workers: Sequence[Remote], offsets: Sequence[Offset]) -> None:
        self.workers = workers
        self.offsets = offsets

    def attack(self, number: int, level: float) -> "FleetAttack":
        """One point, over all workers."""
        return FleetAttack(self, number, level)

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(worker.close() for worker in self.workers), return_exceptions=True)


async def fleet(config: Config, model: str, run_id: str) -> Fleet | None:
    """The workers asked for, ready; None for a run of one. Raises ``PreflightError``."""
    spec = config.spec
    if spec.ray is None and spec.workers == 1:
        return None
    job = Job(spec, model, run_id, config.header_lines(), 0, spec.workers)
    try:
        if spec.ray is None:
            from loadgen.fleet.subprocesses import start_workers  # noqa: PLC0415  # only where asked for

            workers: Sequence[Remote] = await start_workers(job)
        else:
            from loadgen.fleet.ray_actors import start_actors  # noqa: PLC0415  # an extra

            workers = await start_actors(job, spec.ray)
        return Fleet(workers, [await offset_of(worker) for worker in workers])
    except WorkerError as error:
        raise PreflightError(str(error)) from error


async def offset_of(worker: Remote) -> Offset:
    """A worker's clock beside ours: the quickest of several questions (RFC 5905, clock filter)."""
    best: Offset | None = None
    for _ in range(_ROUNDS):
        asked = time.monotonic_ns()
        theirs = await worker.clock()
        answered = time.monotonic_ns()
        half = (answered - asked) // 2
        if best is None or half < best.error_ns:
            best = Offset(theirs - (asked + half), half)
    assert best is not None
    # One host has one monotonic clock: what is within the error of nothing is nothing.
    return Offset(0, 0) if abs(best.ns) <= best.error_ns else best


@dataclass(slots=True)
class FleetAttack:
    """One point of several workers; to its caller like an :class:`loadgen.drive.attack.Attack`."""

    fleet: Fleet
    number: int
    level: float
    progress: Progress = field(default_factory=Progress)
    _interrupted: bool = False
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> Outcome:
        """All parts, merged. Raises ``PreflightError`` where a worker cannot begin."""
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
        if self._interrupted:  # while they prepared
            self.interrupt()
        watching = asyncio.ensure_future(self._watch())
        try:
            found = await asyncio.gather(*parts)
        finally:
            watching.cancel()
        lost = tuple(str(part) for part in found if isinstance(part, WorkerError))
        outcomes = [part for part in found if isinstance(part, Outcome)]
        return merge(start_ns, outcomes, (*lost, *self._clocks()), whole=not lost)

    async def _part(self, worker: Remote, start_ns: int) -> Outcome | WorkerError:
        try:
            return await worker.go(start_ns)
        except WorkerError as error:
            self.interrupt()  # without it the rest is not the load that was asked for
            return error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            told = await asyncio.gather(*(w.progress() for w in self.fleet.workers), return_exceptions=True)
            parts = [part for part in told if isinstance(part, Progress)]
            for name in ("sent", "ended", "failed", "in_flight", "tokens"):
                setattr(self.progress, name, sum(getattr(part, name) for part in parts))
            self.progress.elapsed_ns = max((part.elapsed_ns for part in parts), default=0)

    def interrupt(self) -> None:
        """Tell all workers to end now."""
        self._interrupted = True
        for worker in self.fleet.workers:
            task = asyncio.get_running_loop().create_task(_tell(worker))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _clocks(self) -> list[str]:
        return [
            f"{worker.name}: its clock is known to +- {offset.error_ns / NS_PER_MS:.1f} ms"
            for worker, offset in zip(self.fleet.workers, self.fleet.offsets, strict=True)
            if offset.error_ns > _SAID_NS
        ]


async def _tell(worker: Remote) -> None:
    try:
        await worker.interrupt()
    except WorkerError:
        return  # it is gone, which its part tells


def merge(
    start_ns: int, parts: Sequence[Outcome], notes: tuple[str, ...] = (), *, whole: bool = True
) -> Outcome:
    """One outcome of all parts; lags and CPU are those of the worst worker, which bounds what to believe.

    Times of a part are since its start in its own clock, so they need no shifting. Without all parts
    (not ``whole``) the point was cut short, also where those that are left came to their end.
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
        interrupted=not whole or any(part.interrupted for part in parts),
        capped=sum(part.capped for part in parts),
        notes=(*notes, *dict.fromkeys(note for part in parts for note in part.notes)),
    )
