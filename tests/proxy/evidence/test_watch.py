import logging
import os
from pathlib import Path

import httpx
import pytest

from proxy.config import Backend
from proxy.core.events import Outside
from proxy.evidence.engine_metrics import OurState
from proxy.evidence.watch import Watch
from tests.fakes.raw_upstream import RawUpstream, answer

NAME = "engine"


class World:
    """A backend whose metrics and processes the test sets."""

    def __init__(self) -> None:
        self.running, self.tokens, self.ours = 0, 0, 0
        self.status = 200
        self.processes: dict[str, dict[int, float | None]] = {}
        self.evidence: list[Outside] = []

    def answer(self, _request: httpx.Request) -> httpx.Response:
        page = f"vllm:num_requests_running {self.running}\nvllm:generation_tokens_total {self.tokens}\n"
        return httpx.Response(self.status, text=page)

    def watch(self, url: str = "http://engine.example:8000") -> Watch:
        return Watch(
            [Backend(url, NAME)],
            {NAME: ("gpu0", "gpu1")},
            lambda name: OurState({NAME: self.ours}[name]),
            self.evidence.append,
            lambda: self.processes,
        )

    async def look(self, watch: Watch, times: int = 1) -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as client:
            for _ in range(times):
                self.tokens += 10 * self.running
                await watch.poll(client)


async def test_unseen_requests_are_evidence_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.running, world.ours = 4, 3
    with caplog.at_level(logging.INFO):
        watch = world.watch()
        await world.look(watch, 4)
        world.running = 3
        await world.look(watch, 2)
    shares = [e.share for e in world.evidence]
    assert shares == pytest.approx([0.25, 0.25, 0.25, 0.0, 0.0])
    assert all(a.t_ns == b.start_ns for a, b in zip(world.evidence, world.evidence[1:], strict=False))
    assert world.evidence[0].devices == ("gpu0", "gpu1")
    assert [r.levelname for r in caplog.records if "engine:" in r.message] == ["WARNING", "INFO"]
    assert "are not metered here" in caplog.text


async def test_an_engine_without_metrics_says_nothing() -> None:
    world = World()
    world.status = 404
    await world.look(world.watch(), 3)
    assert world.evidence == []


async def test_foreign_processes_are_evidence(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.status = 404
    watch = world.watch()
    watch._watched[0].own = frozenset({os.getpid()})
    watch._polls = 1  # whose the processes are is known already
    world.processes = {"gpu0": {os.getpid(): 30.0, 99: 10.0}, "gpu1": {os.getpid(): 30.0}}
    await world.look(watch, 2)
    assert [(e.share, e.reason) for e in world.evidence] == [(0.25, "processes")]
    assert "pid 99" in caplog.text


async def test_both_witnesses_together() -> None:
    world = World()
    watch = world.watch()
    watch._watched[0].own, watch._polls = frozenset({1}), 1
    world.processes = {"gpu0": {1: 50.0, 2: 50.0}}
    world.running, world.ours = 4, 2
    await world.look(watch, 3)
    assert world.evidence[-1].share == pytest.approx(0.75)  # half another's, half of the rest unseen


async def test_whose_processes_they_are_must_be_known(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.status = 404
    world.processes = {"gpu0": {99: 10.0}}
    await world.look(world.watch(), 2)  # the backend is on another host
    assert world.evidence == []
    assert "pid 99" not in caplog.text


async def test_metrics_over_a_unix_socket(tmp_path: Path) -> None:
    world = World()
    page = b"vllm:num_requests_running 1\nvllm:generation_tokens_total 5\n"
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page)
    async with RawUpstream(answer(reply), socket=str(tmp_path / "engine.sock")) as engine:
        watch = world.watch(engine.url)
        await world.look(watch, 4)
    assert engine.head.startswith(b"GET /metrics ")
    assert world.evidence[-1].share == 1.0
