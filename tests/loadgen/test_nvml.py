"""Against the NVML stand-in, in a process of its own: its variables must be set before it starts."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.rundir import load
from loadgen.truthserver import Truth, TruthServer
from proxy.clock import now_ns
from proxy.simulator.standin import SimulatedDevice, Standin, StandinError, build, environment


async def loadgen(variables: dict[str, str], *argv: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.cli", *argv, env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


async def test_local_devices_without_a_proxy_and_limits_that_are_not_permitted(tmp_path: Path) -> None:
    try:
        library = build(tmp_path / "lib")
    except StandinError as error:
        pytest.skip(str(error))
    state = tmp_path / "gpu"
    device = SimulatedDevice(name="Simulated GPU", idle_watts=90.0)
    with Standin(state, [device], now_ns()):
        variables = environment(library, state)
        async with TruthServer(Truth(0.02, 0.002, 5)) as server:
            common = ("--source", "nvml", "--url", server.url, "--duration", "1.2s")
            code, out = await loadgen(
                variables, "--rate", "30", *common, "--warmup", "none", "--out", str(tmp_path / "run")
            )
            assert code == 0, out
            refused, why = await loadgen(variables, "sweep", "--rate", "5", *common, "--power-limits", "300")
    run, _ = load(tmp_path / "run")
    (point,) = run.points
    assert point.energy_source == "nvml-simulated"
    assert point.watts == pytest.approx(90.0, rel=0.02)
    assert point.joules == pytest.approx(90.0 * 1.2, rel=0.02)
    assert point.idle_watts == pytest.approx(90.0, rel=0.03)
    assert point.joules_per_request is not None
    assert refused == 2
    assert "root" in why


async def test_no_driver_is_said(tmp_path: Path) -> None:
    nowhere = ("--url", "http://127.0.0.1:1", "--out", str(tmp_path))
    code, out = await loadgen({}, "--rate", "1", "--source", "nvml", *nowhere)
    assert code == 2
    # On a machine with a GPU the devices open, and the server is what is missing.
    assert "NVIDIA driver" in out or "start it" in out
