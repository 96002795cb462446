"""A set sent to a server whose responses carry both names of a request; the timeline and steps behind it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.core.events import Arrive, End, Event, Header
from proxy.core.timeline import encode_events
from proxy.gpu import wire
from proxy.gpu.composition import Work
from proxy.gpu.server import application
from tests.proxy.gpu.modelled import Counting, ModelledDevice


def test_steps_get_the_names_of_the_proxy_and_others_are_left_out(tmp_path: Path) -> None:
    timeline = tmp_path / "t.jsonl"
    events: list[Event] = [Header(1), Arrive(1, "p-1"), End(9, "p-1", 200)]
    timeline.write_bytes(encode_events(events))
    steps = [
        {"start_ns": 2, "end_ns": 3, "members": ["gpu-7"], "works": [[16, 0]]},
        {"start_ns": 4, "end_ns": 5, "members": ["gpu-8"], "works": [[1, 16]]},
    ]
    found = wire.served(timeline, steps, {"gpu-8": "p-1"})
    assert found.events == events
    (step,) = found.steps
    assert (step.members, step.works) == (("p-1",), (Work(1, 16),))


def test_a_torn_last_line_of_the_steps_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps({"start_ns": 2}) + '\n{"start')
    assert wire.read_steps(path) == [{"start_ns": 2}]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def named(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-request-id"] = "p-9"

    app = application(ModelledDevice(), Counting(), 64, 512)
    app.on_response_prepare.append(named)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_request_returns_both_names(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        assert await wire.one(session, url, 4, 2) == ("gpu-0", "p-9")
        with pytest.raises(RuntimeError, match="the server returned 400"):
            await wire.one(session, url, 4, 5000)
