"""A client's poll of a job may carry the job's energy."""

from pathlib import Path

import pytest

from proxy.ipc import EnergyQuery, Opened
from tests.fakes.backend import Backend
from tests.fakes.meter import FakeMeter
from tests.proxy.relay.exchange.test_exchange import relay
from tests.proxy.relay.jobs.test_table import JOB, NEVER, VIDEOS, create, state


@pytest.mark.parametrize("status", ["in_progress", "completed"])
async def test_energy_in_a_poll_is_that_of_the_job(tmp_path: Path, status: str) -> None:
    async with (
        Backend("a", kind="application/json") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **NEVER) as client,
    ):
        a.answers[VIDEOS] = state("queued")
        await create(client, **{"x-request-id": "r"})
        a.answers[JOB] = state(status)
        got = await client.get(JOB, headers={"x-energy": "on"})
        (query,), opened = await meter.until(EnergyQuery), await meter.until(Opened)
    assert got.json()["energy"]["joules"] == 7.5
    assert isinstance(query, EnergyQuery)
    assert query.request == "r"
    assert len(opened) == 1, "a poll is no request of its own"


async def test_a_poll_that_fails_does_not_end_the_job(tmp_path: Path) -> None:
    async with (
        Backend("a") as a,
        FakeMeter(tmp_path) as meter,
        relay(a, socket=meter.socket, **NEVER) as client,
    ):
        a.answers[VIDEOS] = state("in_progress")
        await create(client)
        await a.down()
        assert (await client.get(JOB)).status_code == 502
        await a.up()
        a.answers[JOB] = state("in_progress")
        assert (await client.get(JOB)).status_code == 200
        assert [type(message).__name__ for message in meter.messages].count("Closed") == 0
