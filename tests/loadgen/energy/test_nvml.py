"""Against the NVML stand-in, in a process of its own: its variables must be set before it starts."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.results.run_directory import load
from loadgen.selfcheck.truth_server import Truth, TruthServer
from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, FakeNvmlError, SimulatedDevice, build, environment
from tests.timing import PATIENCE_SECONDS


async def loadgen(variables: dict[str, str], *argv: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.cli", *argv, env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode or 0, out.decode()


async def test_local_devices_without_a_proxy_and_limits_that_are_not_permitted(tmp_path: Path) -> None:
    try:
        library = build(tmp_path / "lib")
    except FakeNvmlError as error:
        pytest.skip(str(error))
    state = tmp_path / "gpu"
    device = SimulatedDevice(name="Simulated GPU", idle_watts=90.0)
    with FakeNvml(state, [device], now_ns()):
        variables = environment(library, state)
        async with TruthServer(Truth(0.02, 0.002, 5)) as server:
            common = ("--source", "nvml", "--url", server.url, "--duration", "1.2s", "--slo", "60s")
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
    assert "needs root, nothing was changed" in why
    assert "Traceback" not in why


async def test_a_missing_driver_is_reported(tmp_path: Path) -> None:
    nowhere = ("--url", "http://127.0.0.1:1", "--out", str(tmp_path))
    code, out = await loadgen({}, "--rate", "1", "--source", "nvml", *nowhere)
    assert code == 2
    # On a machine with a GPU the devices open, and the server is what is missing.
    assert "NVIDIA driver" in out or "start it" in out


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("lib"))
    except FakeNvmlError as error:
        pytest.skip(str(error))


def settable() -> list[SimulatedDevice]:
    return [SimulatedDevice(name=f"Simulated GPU {i}", limit_watts=700.0, settable=True) for i in range(2)]


async def test_limits_are_set_one_after_the_other_and_restored(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "gpu"
    with FakeNvml(state, settable(), now_ns()) as devices:
        async with TruthServer(Truth(0.02, 0.002, 5)) as server:
            argv = (
                "sweep",
                "--rate",
                "20",
                "--duration",
                "0.4s",
                "--source",
                "nvml",
                "--slo",
                "60s",
                "--url",
                server.url,
            )
            out_dir = ("--out", str(tmp_path / "run"))
            variables = environment(library, state)
            code, out = await loadgen(variables, *argv, "--power-limits", "300,400", *out_dir)
            seen = [point.power_limit_watts for point in load(tmp_path / "run")[0].points]
            refused, why = await loadgen(variables, *argv, "--power-limits", "300,900")
        after = [devices.limit_watts(index) for index in range(2)]
    assert code == 0, out
    assert seen == [300, 400]
    assert after == [700, 700]
    assert refused == 2
    assert "--power-limits 900: gpu0 supports 200 to 700 W" in why


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_restores_the_limit(number: int, library: Path, tmp_path: Path) -> None:
    state = tmp_path / "gpu"
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup a subprocess would ignore it
    with FakeNvml(state, settable(), now_ns()) as devices:
        async with TruthServer(Truth(0.02, 0.002, 5)) as server:
            argv = ("sweep", "--rate", "5", "--duration", "600s", "--source", "nvml", "--url", server.url)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadgen.cli", *argv, "--power-limits", "250", "--out", str(tmp_path),
                "--quiet", env={**os.environ, **environment(library, state)},
            )  # fmt: skip
            signal.signal(signal.SIGHUP, hangup)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while devices.limit_watts(1) != 250:  # noqa: ASYNC110  # another process sets it
                        await asyncio.sleep(0.02)
                process.send_signal(number)
                code = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        assert [devices.limit_watts(index) for index in range(2)] == [700, 700]
    assert code == 130


def test_an_exception_restores_the_limit(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "gpu"
    script = (
        "from loadgen.energy.nvml import LocalDevices, power_limits\n"
        "with LocalDevices(), power_limits((250,)) as limits:\n"
        "    limits.set(250)\n"
        "    raise SystemExit(7)\n"
    )
    with FakeNvml(state, settable(), now_ns()) as devices:
        env = {**os.environ, **environment(library, state)}
        done = subprocess.run([sys.executable, "-c", script], env=env, check=False, timeout=60)
        assert done.returncode == 7
        assert devices.limit_watts(0) == 700
