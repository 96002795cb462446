"""The engine on the wire, with a runner that computes nothing."""

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from aiohttp import web

from proxy.gpu.composition import Entry
from proxy.gpu.engine import Engine, Request
from proxy.gpu.server import EngineThread, application
from tests.proxy.gpu.modelled import Counting, ModelledDevice
from tests.timing import PATIENCE_SECONDS

BODY = {"messages": [{"role": "user", "content": "a" * 40}], "max_tokens": 3}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    runner = web.AppRunner(application(ModelledDevice(), Counting(), 64, 512))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def post(url: str, path: str, body: object) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        return response.status, await response.text()


async def test_a_stream_has_a_chunk_for_each_token_and_usage_on_request(url: str) -> None:
    body = BODY | {"stream": True, "stream_options": {"include_usage": True}}
    status, text = await post(url, "/v1/chat/completions", body)
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert (status, events.pop()) == (200, "[DONE]")
    *chunks, usage = (json.loads(event) for event in events)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == [" w7"] * 3
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


async def test_a_response_that_is_not_streamed_has_its_usage(url: str) -> None:
    status, text = await post(url, "/v1/completions", {"prompt": "a" * 8, "max_tokens": 2})
    assert status == 200
    assert json.loads(text)["choices"][0]["text"] == " w7 w7"
    assert json.loads(text)["usage"]["prompt_tokens"] == 2


async def test_requests_at_once_are_all_served(url: str) -> None:
    found = await asyncio.gather(*(post(url, "/v1/chat/completions", BODY) for _ in range(40)))
    assert [status for status, _ in found] == [200] * 40


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([1], "must be a JSON object"),
        ({"messages": [], "max_tokens": 0, "max_completion_tokens": -1}, "max_tokens -1"),
        ({"messages": [{"content": "a"}], "max_tokens": 5000}, "at most 1024 together"),
    ],
)
async def test_an_invalid_body_is_status_400(url: str, body: object, reason: str) -> None:
    status, text = await post(url, "/v1/chat/completions", body)
    assert status == 400
    assert reason in json.loads(text)["error"]["message"]


async def test_the_steps_are_logged_with_their_members_and_work() -> None:
    log = io.StringIO()
    app = application(ModelledDevice(), Counting(), 64, 512, log)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await post(f"http://127.0.0.1:{runner.addresses[0][1]}", "/v1/chat/completions", BODY)
    await runner.cleanup()
    steps = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(step["members"], step["works"]) for step in steps] == [
        (["gpu-0"], [[10, 0]]),
        (["gpu-0"], [[1, 10]]),
        (["gpu-0"], [[1, 11]]),
    ]


class Broken(Counting):
    """A runner whose device fails."""

    def forward(self, entries: Sequence[Entry]) -> list[int]:
        """Fail."""
        raise RuntimeError(f"device lost with {len(entries)} requests")


async def test_a_step_that_fails_is_reported_and_ends_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    failed = threading.Event()
    thread = EngineThread(Engine(ModelledDevice(), Broken(), 512), on_failure=failed.set)
    thread.submit(Request("r", [1] * 8, 2))
    assert await asyncio.to_thread(failed.wait, PATIENCE_SECONDS)
    assert "device lost" in capfd.readouterr().err
