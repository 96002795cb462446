import asyncio
import time
from collections.abc import Callable

import pytest

from loadgen.drive import deadline_timer
from loadgen.drive.deadline_timer import DeadlineTimer


def _recorder(expired: list[int]) -> Callable[[], None]:
    return lambda: expired.append(time.monotonic_ns())


@pytest.mark.parametrize("timerfd", [True, False])
async def test_it_expires_once_and_never_early(monkeypatch: pytest.MonkeyPatch, timerfd: bool) -> None:
    if not timerfd:
        monkeypatch.setattr(deadline_timer, "_timerfd", lambda: (None, -1))
    expired: list[int] = []
    timer = DeadlineTimer(asyncio.get_running_loop(), _recorder(expired))
    due = time.monotonic_ns() + 20_000_000
    timer.set(due + 10**12)
    timer.set(due)  # the later one no longer counts
    await asyncio.sleep(0.1)
    timer.close()
    assert len(expired) == 1
    assert expired[0] >= due - 1_100_000  # the loop's own timers are a millisecond coarse


async def test_a_past_time_expires_in_the_next_iteration_and_a_closed_timer_never() -> None:
    expired: list[int] = []
    timer = DeadlineTimer(asyncio.get_running_loop(), _recorder(expired))
    timer.set(0)
    await asyncio.sleep(0.02)
    assert len(expired) == 1
    timer.set(time.monotonic_ns() + 5_000_000)
    timer.close()
    await asyncio.sleep(0.02)
    assert len(expired) == 1
