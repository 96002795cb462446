"""A job is one request of the meter until it ends, polled by clients or by the proxy."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from proxy.ipc import Closed, JobReport, Opened, ToMeter
from proxy.schema import Units
from tests.fakes.backend import Backend
from tests.fakes.meter import FakeMeter
from tests.proxy.relay.exchange.test_exchange import relay

VIDEOS = "/v1/videos"
JOB = f"{VIDEOS}/v1"
OFTEN: dict[str, Any] = {"job_poll_seconds": 0.05}
NEVER: dict[str, Any] = {"job_poll_seconds": 0.0}


def state(status: str, **more: object) -> tuple[int, bytes]:
    """Return a response with the state of a job."""
    return 200, msgspec.json.encode({"id": "v1", "object": "video", "status": status, **more})


async def create(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post(VIDEOS, json={"model": "film", "prompt": "a cat"}, headers=headers)


def closed(messages: list[ToMeter]) -> Closed:
    """Return the only end."""
    (message,) = messages
    assert isinstance(message, Closed)
    return message


async def test_a_job_ends_with_the_poll_that_shows_it(tmp_path: Path) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **NEVER) as client,
    ):
        a.answers[VIDEOS] = state("queued")
        await create(client, **{"x-request-id": "r"})
        a.answers[JOB] = state("in_progress", progress=20)
        await client.get(JOB)
        reports = await meter.until(JobReport, 2)
        assert not [m for m in meter.messages if isinstance(m, Closed)], "the POST is not its end"
        a.answers[JOB] = state("completed", size="832x480", seconds="5")
        got = await client.get(JOB)
        end = closed(await meter.until(Closed))
        await client.get(JOB)
        await client.get(f"{JOB}/content")
        (opened,) = await meter.until(Opened)
    assert got.content == a.answers[JOB][1], "unchanged"
    assert isinstance(opened, Opened)
    assert (opened.arrive.request, opened.arrive.route, opened.key) == ("r", "videos", end.key)
    starts = [one.started_ns for one in reports if isinstance(one, JobReport)]
    assert starts[0] is None
    assert starts[1] is not None
    assert (end.end.status, end.end.cancelled, end.error_type) == (200, False, None)
    assert end.end.units == Units(pixels=832 * 480, seconds=5.0)


@pytest.mark.parametrize(
    ("last", "error", "cancelled"),
    [
        (state("completed"), None, False),
        (state("failed"), "job_failed", False),
        (state("cancelled"), "cancelled", True),
        ((404, b"{}"), "job_gone", True),
    ],
)
async def test_a_job_that_no_client_polls_is_polled(
    tmp_path: Path, last: tuple[int, bytes], error: str | None, cancelled: bool
) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **OFTEN) as client,
    ):
        a.answers[VIDEOS] = state("queued")
        a.answers[JOB] = state("in_progress")
        await create(client)
        await meter.until(JobReport, 3)
        a.answers[JOB] = (500, b"{}")  # no state of the job
        await asyncio.sleep(0)
        a.answers[JOB] = last
        end = closed(await meter.until(Closed))
    assert (end.error_type, end.end.cancelled) == (error, cancelled)


@pytest.mark.parametrize("answer", [(200, b'{"id":"v1","deleted":true}'), (204, b"")])
async def test_a_delete_ends_a_job(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **NEVER) as client,
    ):
        a.answers[VIDEOS] = state("in_progress")
        await create(client)
        a.answers[JOB] = answer
        await client.delete(JOB)
        end = closed(await meter.until(Closed))
    assert (end.error_type, end.end.cancelled) == ("cancelled", True)


async def test_a_job_of_which_no_state_comes_ends(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"job_timeout_seconds": 0.05, **NEVER}
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **settings) as client,
    ):
        a.answers[VIDEOS] = state("queued")
        await create(client)
        end = closed(await meter.until(Closed))
    assert end.error_type == "job_lost"


@pytest.mark.parametrize(
    "answer", [(200, b"{}"), (200, b'{"status":"queued"}'), (400, b'{"id":"v1","status":"queued"}')]
)
async def test_a_response_that_accepts_no_job_ends_the_request(
    tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    async with Backend("a") as a, FakeMeter(tmp_path) as meter, relay(a, socket=meter.socket) as client:
        a.answers[VIDEOS] = answer
        await create(client)
        end = closed(await meter.until(Closed))
    assert (end.end.status, end.end.units) == (answer[0], None)


async def test_a_restarted_meter_is_informed_of_running_jobs(tmp_path: Path) -> None:
    async with Backend("a") as a:
        a.answers[VIDEOS] = state("in_progress")
        async with FakeMeter(tmp_path) as first:
            running = relay(a, socket=first.socket, **NEVER)
            client = await running.__aenter__()
            await create(client, **{"x-request-id": "r"})
            await first.until(JobReport)
        try:
            async with FakeMeter(tmp_path) as second:
                (opened,), (report,) = await second.until(Opened), await second.until(JobReport)
                assert isinstance(opened, Opened)
                assert isinstance(report, JobReport)
                assert (opened.arrive.request, opened.key) == ("r", report.key)
                a.answers[JOB] = state("completed")
                await client.get(JOB)
                assert closed(await second.until(Closed)).key == opened.key
        finally:
            await running.__aexit__(None, None, None)


async def test_polls_have_the_credentials_of_the_post(tmp_path: Path) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **OFTEN) as client,
    ):
        a.answers[VIDEOS] = a.answers[JOB] = state("queued")
        await create(client, authorization="Bearer k")
        await meter.until(JobReport, 2)
    assert "authorization: bearer k" in a.heads[-1].decode().lower()


async def test_a_second_job_of_the_same_id_ends_the_record_of_the_first(tmp_path: Path) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **NEVER) as client,
    ):
        a.answers[VIDEOS] = state("queued")
        await create(client)
        await create(client)
        opened = await meter.until(Opened, 2)
        end = closed(await meter.until(Closed))
    assert isinstance(opened[0], Opened)
    assert (end.key, end.error_type) == (opened[0].key, "job_lost")
