"""Several backends behind a running proxy: their devices and models, new settings, processes that die."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from tests.e2e.serving import Serving, serving, serving_beside, until_measured
from tests.e2e.test_lifecycle import records, stream
from tests.fakes.model_server import ModelServer
from tests.timing import PATIENCE_SECONDS


def settings(path: Path, *urls: str, devices: bool = False) -> Path:
    tables = [
        f'[[backends]]\nurl = "{url}"\nname = "b{n}"\n' + (f'devices = ["{n}"]\n' if devices else "")
        for n, url in enumerate(urls)
    ]
    path.write_text("health_interval_seconds = 0.1\nslow_start_seconds = 0\n" + "".join(tables))
    return path


async def states(proxy: Serving) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        found = (await client.get(f"{proxy.admin}/backends")).json()["backends"]
        return {backend["name"]: backend for backend in found}


@contextlib.asynccontextmanager
async def two(tokens: int = 20, gap_seconds: float = 0.02) -> AsyncIterator[tuple[ModelServer, ModelServer]]:
    async with (
        ModelServer(tokens=tokens, gap_seconds=gap_seconds) as a,
        ModelServer(tokens=tokens, gap_seconds=gap_seconds) as b,
    ):
        yield a, b


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")
async def test_each_backend_is_charged_with_its_own_device(tmp_path: Path) -> None:
    library, state, ledger = build(tmp_path / "lib"), tmp_path / "state", tmp_path / "ledger"
    devices = [SimulatedDevice(idle_watts=100.0), SimulatedDevice(idle_watts=300.0)]
    with FakeNvml(state, devices, now_ns()):
        async with two(tokens=50) as (a, b):
            path = settings(tmp_path / "j.toml", a.url, b.url, devices=True)
            words = (
                "--config",
                str(path),
                "--source",
                "nvml",
                "--policy",
                "overlap",
                "--ledger",
                str(ledger),
            )
            async with serving_beside(*words, variables=environment(library, state)) as proxy:
                await until_measured(proxy, len(devices))
                assert await asyncio.gather(*(stream(proxy, f"r{n}") for n in range(2))) == [51, 51]
    found = records(ledger)
    by_backend = {record.backend: record for record in found.values()}
    assert set(by_backend["b0"].devices or {}) == {"gpu0"}
    assert set(by_backend["b1"].devices or {}) == {"gpu1"}
    watts = {name: (found.joules or 0.0) / (found.duration_s or 1.0) for name, found in by_backend.items()}
    assert watts == pytest.approx({"b0": 100.0, "b1": 300.0}, rel=0.1)


async def test_new_settings_lose_no_request_and_wrong_ones_change_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with two() as (a, b):
        a.may_end.clear()
        path = settings(tmp_path / "j.toml", a.url)
        with serving(None, "--config", str(path), "--source", "none", "--ledger", str(ledger)) as proxy:
            running = [asyncio.ensure_future(stream(proxy, f"on-a-{n}")) for n in range(3)]
            await until(lambda: a.running == 3)
            path.write_text("[[backends]]\nurll = 3\n")
            proxy.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
            assert list(await states(proxy)) == ["b0"]
            settings(path, b.url)
            proxy.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await states(proxy))["b0"]["url"] != b.url:  # noqa: ASYNC110 - in other processes
                    await asyncio.sleep(0.02)
            running += [asyncio.ensure_future(stream(proxy, f"on-b-{n}")) for n in range(2)]
            await until(lambda: b.running == 2)
            a.may_end.set()
            assert await asyncio.gather(*running) == [21] * 5
    assert {name.rpartition("-")[0] for name in records(ledger)} == {"on-a", "on-b"}
    assert all(record.status == 200 for record in records(ledger).values())


async def test_a_dead_backend_is_seen_and_a_dead_worker_takes_only_its_own_with_it(tmp_path: Path) -> None:
    async with two() as (a, b):
        path = settings(tmp_path / "j.toml", a.url, b.url, "http://127.0.0.1:1")
        words = ("--config", str(path), "--source", "none", "--workers", "2", "--no-check-upstream")
        async with serving_beside(*words) as proxy:
            seen = await until_seen_by(proxy, 2)
            assert [backend["state"] for backend in seen.values()] == ["up", "up", "down"]
            assert "refused" in seen["b2"]["workers"][0]["reason"].lower()
            assert seen["b0"]["models"] == ["tiny"]
            a.may_end.clear()
            b.may_end.clear()
            running = [asyncio.ensure_future(stream(proxy, f"r{n}")) for n in range(12)]
            await until(lambda: a.running + b.running == 12)
            os.kill(children(proxy)[1], signal.SIGKILL)
            await until(lambda: a.running + b.running < 12)
            a.may_end.set()
            b.may_end.set()
            ends = await asyncio.gather(*running, return_exceptions=True)
            lost = [end for end in ends if isinstance(end, httpx.TransportError)]
            assert [end for end in ends if end not in lost] == [21] * (12 - len(lost))
            assert 0 < len(lost) < 12
            await until_seen_by(proxy, 2)


def children(proxy: Serving) -> list[int]:
    """Return the meter, then the workers."""
    pid = proxy.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until_seen_by(proxy: Serving, workers: int) -> dict[str, Any]:
    """Return the backends, once this many workers reported them."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len((seen := await states(proxy))["b0"]["workers"]) != workers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return seen


async def until(true: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is awaited is in another process
            await asyncio.sleep(0.01)
