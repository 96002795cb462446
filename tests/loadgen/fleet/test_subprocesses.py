"""Real worker processes against a server of known truth."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from loadgen.config.spec import Config, Spec
from loadgen.drive.pacer import OpenLoop, schedule_ns
from loadgen.drive.planning import plan
from loadgen.drive.preflight import PreflightError
from loadgen.fleet.leader import Fleet, fleet
from loadgen.fleet.remote import WorkerError
from loadgen.fleet.subprocesses import WorkerProcess, start_workers
from loadgen.fleet.worker import Job
from loadgen.run.session import Session
from loadgen.run.view import View
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.timing import PATIENCE_SECONDS


@pytest.fixture
async def server() -> AsyncIterator[TruthServer]:
    async with TruthServer(Truth(0.01, 0.001, 3)) as made:
        yield made


def spec(server: TruthServer, **changes: object) -> Spec:
    return msgspec.structs.replace(
        Spec(
            command="run",
            mode="rate",
            levels=(100.0,),
            url=server.url,
            admin_url="http://127.0.0.1:9",
            duration_seconds=0.4,
            output="3",
            workers=2,
        ),
        **changes,
    )


def config(one: Spec) -> Config:
    return Config(spec=one, out=Path())


async def ready(one: Spec) -> Fleet:
    found = await fleet(config(one), "truth", "run1")
    assert found is not None
    return found


async def test_one_worker_is_no_fleet(server: TruthServer) -> None:
    assert await fleet(config(spec(server, workers=1)), "truth", "r") is None


async def test_two_processes_share_one_schedule(server: TruthServer) -> None:
    one = spec(server)
    found = await ready(one)
    try:
        outcome = await found.attack(3, 100.0).run()
    finally:
        await found.close()
    pacer = plan(one, 100.0)[1]
    assert isinstance(pacer, OpenLoop)
    assert [r.scheduled_ns for r in outcome.records] == schedule_ns(pacer)
    assert [r.id for r in outcome.records] == [f"lg-run1-3-{k}" for k in range(len(outcome.records))]
    assert all(r.ok and r.point == 3 and r.output_tokens == 3 for r in outcome.records)
    assert all(r.scheduled_ns <= r.dispatched_ns for r in outcome.records)
    assert outcome.sending_end_ns == 400_000_000
    assert not outcome.interrupted


async def test_a_run_with_workers_has_all_requests(server: TruthServer) -> None:
    session = Session(config(spec(server, slo="60s")), View())
    finished = await session.run()
    assert finished.run.verdict == "pass"
    (point,) = finished.run.points
    assert 0 < point.requests <= len(finished.records)
    assert sum(record.ok for record in finished.records) == len(finished.records) > 20


async def test_a_killed_worker_is_named_and_the_rest_is_kept(server: TruthServer) -> None:
    found = await ready(spec(server, duration_seconds=30.0))
    attack = found.attack(0, 100.0)
    running = asyncio.ensure_future(attack.run())
    while attack.progress.ended < 5:  # noqa: ASYNC110  # progress is polled
        await asyncio.sleep(0.01)
    first = found.workers[0]
    assert isinstance(first, WorkerProcess)
    os.kill(first.pid, signal.SIGKILL)
    outcome = await asyncio.wait_for(running, PATIENCE_SECONDS)
    await found.close()
    assert outcome.interrupted
    assert outcome.notes == (f"worker 1 of 2 (pid {first.pid}) was killed by signal 9",)
    assert {record.index % 2 for record in outcome.records} == {1}
    with pytest.raises(WorkerError, match="signal 9"):
        await first.clock()


async def test_an_error_of_a_worker_is_reported(server: TruthServer) -> None:
    found = await ready(spec(server, url="http://127.0.0.1:1"))
    with pytest.raises(PreflightError, match=r"worker . of 2 .*: .*[Cc]onnect"):
        await found.attack(0, 100.0).run()
    await found.close()
    (alone,) = await start_workers(Job(spec(server), "truth", "r", b"", 0, 1))
    with pytest.raises(WorkerError, match="no method 'dance'"):
        await alone._call("dance", None)
    await alone.close()
