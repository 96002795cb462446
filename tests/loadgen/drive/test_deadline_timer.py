import asyncio
import time
from collections.abc import Callable

import pytest

from loadgen.drive import deadline_timer
from loadgen.drive.deadline_timer import DeadlineTimer


def _ringer(heard: list[int]) -> Callable[[], None]:
    return lambda: heard.append(time.monotonic_ns())


@pytest.mark.parametrize("timerfd", [True, False])
async def test_rings_once_and_never_early(monkeypatch: pytest.MonkeyPatch, timerfd: bool) -> None:
    if not timerfd:
        monkeypatch.setattr(deadline_timer, "_timerfd", lambda: (None, -1))
    heard: list[int] = []
    bell = DeadlineTimer(asyncio.get_running_loop(), _ringer(heard))
    due = time.monotonic_ns() + 20_000_000
    bell.set(due + 10**12)
    bell.set(due)  # the later one no longer counts
    await asyncio.sleep(0.1)
    bell.close()
    assert len(heard) == 1
    assert heard[0] >= due - 1_100_000  # the loop's own timers are a millisecond coarse


async def test_a_time_in_the_past_rings_at_the_next_turn_and_a_closed_one_never() -> None:
    heard: list[int] = []
    bell = DeadlineTimer(asyncio.get_running_loop(), _ringer(heard))
    bell.set(0)
    await asyncio.sleep(0.02)
    assert len(heard) == 1
    bell.set(time.monotonic_ns() + 5_000_000)
    bell.close()
    await asyncio.sleep(0.02)
    assert len(heard) == 1
