import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from proxy.clock import now_ns
from proxy.simulator.engine.batching import Engine, Plan
from proxy.simulator.engine.job import Job
from proxy.simulator.gpu.board import Board
from proxy.simulator.profiles.profile import DEFAULT, Costs, load
from proxy.simulator.server.metrics import Metrics
from proxy.simulator.server.runner import BEHIND_NS, Draw, Runner
from proxy.units import seconds_from_ns
from tests.timing import PATIENCE_SECONDS

STEP = Costs(static=2e-3, decode=0.0, context=0.0, prefill=0.0)
FAST = replace(load(DEFAULT), seconds=STEP, cap_watts=None)


def made(draw: Draw) -> Runner[Job, Plan]:
    return Runner(Engine(FAST), Metrics("m"), Board(FAST.idle_watts), draw)


@asynccontextmanager
async def running(runner: Runner[Job, Plan]) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(runner.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_steps_take_the_profiles_time_however_late_they_start() -> None:
    drawn: list[int] = []  # when each piece of constant power began, by the runner's own clock
    runner = made(lambda t_ns, _w: drawn.append(t_ns))
    async with running(runner):
        queue: asyncio.Queue[bool | None] = asyncio.Queue()
        runner.submit(Job("a", 1, 150), queue.put_nowait)
        tokens = 0
        while await queue.get():
            tokens += 1
    assert tokens == 149
    first, *_, last = drawn[-151:-1]  # the steps; the last piece is idle again
    took = seconds_from_ns(last - first)
    # The schedule may be behind by what is caught up at the last step: nothing that grows with the steps.
    # Time that was lost before the first step or after the last one is in ``late_seconds``, too.
    behind = seconds_from_ns(BEHIND_NS) + 1e-3
    assert 149 * 2e-3 - behind <= took <= 149 * 2e-3 + behind + runner.late_seconds


async def test_idle_joules_grow_while_idle_and_only_then() -> None:
    runner = made(lambda _t, _w: None)
    async with running(runner):
        await asyncio.sleep(0)
        now = now_ns()
        more = runner.idle_joules(now + 1_000_000_000) - runner.idle_joules(now)
        assert more == pytest.approx(FAST.idle_watts)
        queue: asyncio.Queue[bool | None] = asyncio.Queue()
        runner.submit(Job("a", 1, 50), queue.put_nowait)
        await queue.get()
        assert runner.idle_joules(now) == runner.idle_joules(now + 1_000_000_000)


async def test_a_failure_is_logged_and_ends_every_answer(caplog: pytest.LogCaptureFixture) -> None:
    def draw(_t: int, watts: float) -> None:
        if watts != FAST.idle_watts:
            raise ValueError("the file is gone")

    runner = made(draw)
    with caplog.at_level(logging.ERROR):
        async with running(runner):
            queue: asyncio.Queue[bool | None] = asyncio.Queue()
            runner.submit(Job("a", 1, 5), queue.put_nowait)
            assert await queue.get() is None
            runner.submit(Job("b", 1, 5), queue.put_nowait)
            assert await queue.get() is None
    assert "the simulated engine failed" in caplog.text
    assert runner.failed


async def test_ramps_and_deep_idle_are_drawn_and_add_up() -> None:
    segments: list[tuple[int, float]] = []
    board = Board(FAST.idle_watts, ramp_seconds=0.01, deep_watts=20.0, deep_seconds=0.1)
    runner = Runner(Engine(FAST), Metrics("m"), board, lambda t_ns, watts: segments.append((t_ns, watts)))
    async with running(runner):
        for _ in range(2):
            queue: asyncio.Queue[bool | None] = asyncio.Queue()
            job = Job("a", 1, 30)
            runner.submit(job, queue.put_nowait)
            while await queue.get():
                pass
            runner.leave(job)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while segments[-1][1] > 20.5:  # noqa: ASYNC110 - deep idle is reached by degrees
                    await asyncio.sleep(0.01)
        end = now_ns() + 1_000_000_000
        parts = runner.busy_joules + runner.idle_joules(end)
    whole = [*segments, (end, 0.0)]
    drawn = sum(watts * seconds_from_ns(after - at) for (at, watts), (after, _) in pairwise(whole))
    assert parts == pytest.approx(drawn, rel=1e-9)
    watts = [each for _, each in segments]
    assert watts[-1] == pytest.approx(20.0, abs=0.5)
    steps = [each for each in watts if each > 1.01 * FAST.idle_watts]
    assert len({round(each) for each in steps}) > 10, "it rises and falls by degrees"
    assert job.joules.total < runner.busy_joules
