"""Requests that reach the engine another way: their energy is charged to no one's request."""

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from tests.e2e.serving import serving
from tests.e2e.test_first_light import final_record
from tests.fakes.model_server import MODEL, ModelServer
from tests.timing import PATIENCE_SECONDS

WATTS = 300.0
SECONDS = 6.0

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")


async def ask(url: str, request_id: str) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        body = {"model": MODEL, "messages": []}
        answer = await client.post(
            f"{url}/v1/chat/completions", json=body, headers={"x-request-id": request_id}
        )
    answer.raise_for_status()


async def test_unseen_requests_are_not_charged_to_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    variables = environment(build(tmp_path / "lib"), tmp_path / "state")
    with FakeNvml(tmp_path / "state", [SimulatedDevice(idle_watts=WATTS)], now_ns()):
        async with ModelServer(tokens=60, gap_seconds=SECONDS / 60, metrics=True) as engine:
            with serving(engine.url, "--policy", "overlap", variables=variables) as proxy:
                others = (ask(engine.url, "other") for _ in range(3))
                await asyncio.gather(ask(proxy.url, "ours"), *others)
                record = await final_record(proxy, "ours")
                async with httpx.AsyncClient() as client:
                    (device,) = (await client.get(f"{proxy.admin}/energy/devices")).json()["devices"]
    assert record.joules is not None
    whole = WATTS * (record.duration_s or 0.0)
    # Between two scrapes a quarter of the batch was ours; the first and the last second are not compared.
    assert record.joules < 0.65 * whole
    assert record.joules > 0.2 * whole
    assert record.unknown == "unseen_traffic"
    assert record.joules_high is not None
    assert device["unattributed_joules"] > 0.4 * whole
    total = sum(device[f"{account}_joules"] for account in ("requests", "idle", "unattributed"))
    assert total == pytest.approx(device["measured_joules"], rel=1e-9)
    assert "are not metered here" in capfd.readouterr().err
