"""The link to the meter: what the next meter is told when one died."""

import asyncio
from pathlib import Path

from proxy.clock import now_ns
from proxy.core.events import Arrive, End
from proxy.ipc import BackendState, Chunk, Closed, EnergyQuery, Leaving, Opened
from proxy.relay.http.trace_context import continue_trace
from proxy.relay.meter_link import MeterLink
from proxy.relay.request_meter import RequestMeter
from tests.fakes.meter import FakeMeter


def a_call(link: MeterLink, name: str) -> RequestMeter:
    call = RequestMeter(link, Arrive(now_ns(), name), "h", 80)
    call.open(continue_trace(None, "ab" * 32), now_ns(), "/v1/chat/completions", None)
    return call


def chunks(call: RequestMeter, count: int) -> None:
    for _ in range(count):
        call.reading.counted += 1
        call.chunk(now_ns(), 1)


async def test_the_next_meter_is_told_of_what_runs_and_what_was_kept(tmp_path: Path) -> None:
    link = MeterLink(str(tmp_path / "meter.sock"), 1000)
    await link.open()
    async with FakeMeter(tmp_path) as first:
        running, ending, ended = a_call(link, "running"), a_call(link, "ending"), a_call(link, "ended")
        chunks(running, 3)
        ended.close(200)
        await first.until(Chunk, 3)
    while link._transport is not None:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.001)
    chunks(running, 2)
    ending.close(200)
    later = a_call(link, "later")
    link.report(BackendState("b", "up", 0, 0))
    async with FakeMeter(tmp_path) as second:
        await second.until(Opened, 3)
        later.close(200)
        running.close(200)
        await second.until(Closed, 3)
        await link.close()
    told = second.messages
    opened = [m.arrive.request for m in told if isinstance(m, Opened)]
    assert opened == ["running", "ending", "later"], "not again what had ended"
    mine = [m for m in told if not isinstance(m, BackendState) and m.key == running.key]  # type: ignore[union-attr]
    assert [m.tokens for m in mine if isinstance(m, Chunk)] == [1, 2, 1, 1]
    assert [type(m) for m in mine] == [Opened, Chunk, Chunk, Chunk, Chunk, Closed]
    first_chunk = next(m for m in first.messages if isinstance(m, Chunk))
    assert isinstance(mine[1], Chunk)
    assert mine[1].t_ns == first_chunk.t_ns, "its first token keeps its time"
    assert not any(isinstance(m, BackendState) for m in told), "no news worth keeping"
    assert not link.running


async def test_what_was_not_sent_yet_is_not_told_twice(tmp_path: Path) -> None:
    link = MeterLink(str(tmp_path / "none"), 1000)
    call = a_call(link, "a")
    chunks(call, 2)
    link.disconnected()
    assert [type(m) for m in link._pending] == [Opened, Chunk, Chunk]
    link._pending.clear()  # as if sent
    chunks(call, 1)
    link.disconnected()
    assert [m.tokens for m in link._pending if isinstance(m, Chunk)] == [1, 2]


async def test_over_the_bound_chunks_go_first_and_are_counted(tmp_path: Path) -> None:
    link = MeterLink(str(tmp_path / "none"), 3)
    call = a_call(link, "a")
    chunks(call, 4)
    call.close(200)
    assert [type(m) for m in link._pending] == [Opened, Chunk, Closed]
    assert link._dropped == 3
    link.send(Closed(9, End(0, "b")))
    link.send(Closed(9, End(0, "c")))
    assert [type(m) for m in link._pending] == [Closed, Closed, Closed]


async def test_that_it_leaves_is_told_to_every_meter(tmp_path: Path) -> None:
    link = MeterLink(str(tmp_path / "meter.sock"), 10)
    await link.open()
    async with FakeMeter(tmp_path) as first:
        while link._transport is None:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)
        link.announce_drain()
        await first.until(Leaving)
    async with FakeMeter(tmp_path) as second:
        await second.until(Leaving)
    await link.close()


async def test_messages_gather_and_a_question_takes_them_along(tmp_path: Path) -> None:
    async with FakeMeter(tmp_path) as meter:
        link = MeterLink(meter.socket, 10)
        await link.open()
        while link._transport is None:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)
        call = a_call(link, "a")
        chunks(call, 2)
        assert [type(m) for m in link._pending] == [Opened, Chunk, Chunk]
        told = asyncio.ensure_future(link.request_energy("a", 1, 0.0, 1.0))
        await asyncio.sleep(0)
        assert link._pending == [], "a question does not wait"
        assert await told == meter.energy
        assert [type(m) for m in meter.messages] == [Opened, Chunk, Chunk, EnergyQuery]
        await link.close()


async def test_what_a_long_outage_left_comes_in_frames_of_bounded_size(tmp_path: Path) -> None:
    link = MeterLink(str(tmp_path / "meter.sock"), 100_000)
    names = [f"{n:06d}" + "x" * 1000 for n in range(20_000)]
    for key, name in enumerate(names):
        link.send(Closed(key, End(0, name)))
    await link.open()
    async with FakeMeter(tmp_path) as meter:
        told = await meter.until(Closed, len(names))
        await link.close()
    assert [m.end.request for m in told if isinstance(m, Closed)] == names
