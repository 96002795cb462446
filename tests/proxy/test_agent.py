"""The agent's HTTP server, read by the production source over a real socket."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from proxy.agent import Buffer, application
from proxy.cli import main
from proxy.clock import now_ns
from proxy.core.events import Sample
from proxy.energy.choice import Choice, OpenedSource
from proxy.energy.source import SensorError
from proxy.energy.sources.agent import AgentSource
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS, NS_PER_SECOND
from tests.timing import PATIENCE_SECONDS


def test_a_buffer_gives_what_is_after_a_number() -> None:
    buffer = Buffer(keep=3)
    buffer.add([Sample(k, "gpu0", energy_mj=float(k)) for k in range(1, 6)])
    assert [s.t_ns for s in buffer.after(4, buffer.agent, 9).samples] == [5]
    late = buffer.after(1, buffer.agent, 9)
    assert ([s.t_ns for s in late.samples], late.missed, late.last) == ([3, 4, 5], 1, 5)
    assert len(buffer.after(4, "another agent", 9).samples) == 3
    assert buffer.after(5, buffer.agent, 9).samples == ()


async def test_a_proxy_reads_it_over_a_socket(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], now_ns()):
        local = SimulatedSource(tmp_path / "s")
        choice = Choice((OpenedSource(local, tuple(local.open())),))
        buffer = Buffer()
        runner = web.AppRunner(application(choice, buffer, "secret"), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        refused = AgentSource(url)
        with pytest.raises(SensorError, match="rejects the token"):
            await asyncio.to_thread(refused.open)
        refused.close()
        source = AgentSource(url, "secret")
        (found,) = await asyncio.to_thread(source.open)
        assert found.device.id == "127.0.0.1/gpu0"
        taken = local.read()
        buffer.add(taken)
        (sample,) = await asyncio.to_thread(source.read)
        assert abs(sample.t_ns - taken[0].t_ns) <= (source._remote.error_ns or 0)
        assert sample.energy_mj == taken[0].energy_mj
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/healthz")).status_code == 200
            bad = await client.get(f"{url}/v1/samples?after=x", headers={"Authorization": "Bearer secret"})
        assert (bad.status_code, bad.text) == (400, "after: must be a number, not 'x'\n")
        source.close()
        await runner.cleanup()
        choice.close()


def test_it_is_not_open_to_others_without_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--listen", "0.0.0.0:0"]) == 2
    assert "give --agent-token" in capsys.readouterr().err


def test_the_command_serves_until_told_to_stop(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], now_ns() - NS_PER_SECOND) as fake_nvml:
        words = ["agent", "--listen", "127.0.0.1:0", "--source", f"simulated:{tmp_path / 's'}"]
        command = [sys.executable, "-m", "proxy", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as child:
            assert child.stderr is not None
            line = next(line for line in child.stderr if "a proxy reads it by" in line)
            source = AgentSource(line.split("agent:")[-1].strip())
            source.open()
            samples: list[Sample] = []
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(samples) < 20 and time.monotonic() < deadline:
                samples += source.read()
            clock_error_ns = source._remote.error_ns or 0  # half the quickest exchange
            source.close()
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE_SECONDS) == 0
        for sample in samples[5:]:
            assert sample.energy_mj is not None
            truth_mj = fake_nvml.truth_joules(0, sample.t_ns) * 1000
            assert abs(truth_mj - sample.energy_mj) <= 70 * (20 + clock_error_ns / NS_PER_MS)  # an update
        assert len(samples) >= 20
