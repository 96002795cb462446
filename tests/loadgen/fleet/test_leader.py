"""Merging and leading, with fake workers of given clocks and outcomes."""

import asyncio

import pytest

from loadgen.drive.attack import Outcome, Progress
from loadgen.drive.preflight import PreflightError
from loadgen.fleet.leader import Fleet, Offset, merge, offset_of
from loadgen.fleet.remote import WorkerError
from loadgen.results.records import Record
from proxy.clock import now_ns


class Scripted:
    """A worker that does a point at once, or dies."""

    def __init__(self, name: str, outcome: Outcome | None, shift_ns: int = 0) -> None:
        self.name = name
        self.shift_ns = shift_ns
        self.started_ns: int | None = None
        self._outcome = outcome
        self._told = asyncio.Event()
        self.waits = False

    async def clock(self) -> int:
        return now_ns() + self.shift_ns

    async def prepare(self, number: int, level: float) -> None:
        del number
        if level < 0:
            raise WorkerError(f"{self.name}: no such level")

    async def go(self, start_ns: int) -> Outcome:
        self.started_ns = start_ns
        if self._outcome is None:
            raise WorkerError(f"{self.name} was killed by signal 9")
        if self.waits:
            await self._told.wait()
        return self._outcome

    async def progress(self) -> Progress:
        return Progress(sent=2, elapsed_ns=7)

    async def interrupt(self) -> None:
        self._told.set()

    async def close(self) -> None:
        self._told.set()


def record(index: int) -> Record:
    return Record(point=0, index=index, id=f"r{index}", scheduled_ns=index * 10, dispatched_ns=index * 10)


def outcome(*indices: int, lag_ns: int = 0, cpu: float = 0.1, interrupted: bool = False) -> Outcome:
    records = [record(index) for index in indices]
    return Outcome(5, 100 + len(indices), 200, records, [lag_ns], cpu, interrupted, capped=1)


def fleet_of(*workers: Scripted) -> Fleet:
    return Fleet(workers, [Offset(worker.shift_ns, 0) for worker in workers])


def test_records_are_merged_in_order_with_the_lag_of_the_worst_worker() -> None:
    merged = merge(9, [outcome(0, 3, lag_ns=5, cpu=0.2), outcome(1, 2, 4, lag_ns=50, cpu=0.1)])
    assert [r.index for r in merged.records] == [0, 1, 2, 3, 4]
    assert (merged.start_ns, merged.sending_end_ns, merged.end_ns) == (9, 103, 200)
    assert (merged.lags_ns, merged.cpu_share, merged.capped, merged.interrupted) == ([50], 0.2, 2, False)
    assert merge(9, [outcome(0), outcome(1, interrupted=True)]).interrupted
    assert merge(9, [outcome(0)], complete=False).interrupted


async def test_the_offset_of_another_clock_is_measured_and_of_the_same_is_zero() -> None:
    far = await offset_of(Scripted("far", None, shift_ns=3_600_000_000_000))
    assert abs(far.ns - 3_600_000_000_000) <= far.error_ns
    assert await offset_of(Scripted("near", None)) == Offset(0, 0)


async def test_workers_start_at_the_same_time_on_their_own_clocks() -> None:
    workers = [Scripted("a", outcome(0)), Scripted("b", outcome(1), shift_ns=1_000_000_000)]
    merged = await fleet_of(*workers).attack(0, 8.0).run()
    assert workers[0].started_ns == merged.start_ns
    assert workers[1].started_ns == merged.start_ns + 1_000_000_000
    assert not merged.notes


async def test_a_large_clock_error_is_noted() -> None:
    one = Scripted("a", outcome(0))
    merged = await Fleet([one], [Offset(9, 2_500_000)]).attack(0, 8.0).run()
    assert merged.notes == ("a: the offset of its clock is known to +- 2.5 ms",)


async def test_a_worker_that_dies_ends_the_point_and_is_named() -> None:
    living = Scripted("b", outcome(1, interrupted=True))
    living.waits = True
    merged = await fleet_of(Scripted("a", None), living).attack(0, 8.0).run()
    assert [r.index for r in merged.records] == [1]
    assert merged.notes == ("a was killed by signal 9",)
    assert merged.interrupted


async def test_a_point_with_a_dead_worker_is_interrupted() -> None:
    merged = await fleet_of(Scripted("a", None), Scripted("b", outcome(1))).attack(0, 8.0).run()
    assert merged.interrupted
    assert merged.notes == ("a was killed by signal 9",)


async def test_a_worker_that_cannot_prepare_is_reported() -> None:
    with pytest.raises(PreflightError, match="a: no such level"):
        await fleet_of(Scripted("a", outcome(0))).attack(0, -1.0).run()


async def test_an_interrupt_reaches_all_and_progress_is_summed() -> None:
    workers = [Scripted("a", outcome(0, interrupted=True)), Scripted("b", outcome(1, interrupted=True))]
    for worker in workers:
        worker.waits = True
    attack = fleet_of(*workers).attack(0, 8.0)
    running = asyncio.ensure_future(attack.run())
    while attack.progress.sent != 4:  # noqa: ASYNC110  # progress is polled
        await asyncio.sleep(0.01)
    assert attack.progress.elapsed_ns == 7
    attack.interrupt()
    assert (await running).interrupted
