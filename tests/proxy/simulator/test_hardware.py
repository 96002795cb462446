"""Devices of an engine as a reader of NVML sees them: clock, heat and faults."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import now_ns
from proxy.core.energy import power_timeline as layout
from proxy.simulator.engine import diffusion
from proxy.simulator.engine.job import Job
from proxy.simulator.gpu.fake_nvml import SM_MHZ, FakeNvml, build, environment
from proxy.simulator.hardware import Hardware, HardwareError, deep_idle
from proxy.simulator.profiles.profile import DEFAULT, Profile, adjusted, load
from proxy.simulator.server.text_server import Server
from proxy.simulator.server.web_app import Fault, WebApp
from proxy.units import NS_PER_SECOND

PROFILE = adjusted(load(DEFAULT), cap_watts=300.0)
READ = """
import pynvml, time
pynvml.nvmlInit()
h = pynvml.nvmlDeviceGetHandleByIndex(0)
try:
    begin = time.monotonic()
    print(pynvml.nvmlDeviceGetTemperature(h, 0), pynvml.nvmlDeviceGetClockInfo(h, 1),
          pynvml.nvmlDeviceGetUtilizationRates(h).gpu, pynvml.nvmlDeviceGetEnforcedPowerLimit(h) // 1000,
          pynvml.nvmlDeviceGetTotalEnergyConsumption(h), time.monotonic() - begin)
except pynvml.NVMLError as error:
    print(error)
"""


def value(state: Path, name: str, device: int = 0) -> float:
    return layout.DeviceBlock(memoryview(state.read_bytes()), device).value(name)


def one(how: Hardware, fake_nvml: FakeNvml) -> Any:
    (server,) = how.servers([PROFILE], fake_nvml)
    return server


def busy(server: WebApp[Any, Any]) -> None:
    """A step of 32 streams is planned."""
    assert isinstance(server, Server)
    for number in range(32):
        server.engine.submit(Job(str(number), 64, 50))
    for _ in range(3):
        plan = server.engine.plan()
        assert plan is not None
        server.engine.finish(plan)
    server.engine.plan()


def test_the_clock_falls_under_a_limit_and_the_utilization_rises(tmp_path: Path) -> None:
    how, state = Hardware(), tmp_path / "s"
    with FakeNvml(state, how.devices(PROFILE), 0) as fake_nvml:
        server = one(how, fake_nvml)
        server.runner._draw(10, 74.0)
        assert (value(state, "sm_mhz"), value(state, "utilization")) == (SM_MHZ, 0)
        busy(server)
        server.runner._draw(20, 300.0)
        assert 0.6 * SM_MHZ < value(state, "sm_mhz") < 0.95 * SM_MHZ
        assert (value(state, "utilization"), value(state, "limit_watts")) == (100, 300)


def test_a_hot_board_lowers_the_limit_of_its_engine(tmp_path: Path) -> None:
    how = Hardware(hot=45.0)
    with FakeNvml(tmp_path / "s", how.devices(PROFILE), 0) as fake_nvml:
        server = one(how, fake_nvml)
        assert server.engine.costs.limit_watts == 300.0
        busy(server)
        for second in range(60):
            watts = server.runner._board.step(300.0, 1.0)
            server.runner._draw(second * NS_PER_SECOND, watts)
        assert server.engine.costs.limit_watts == pytest.approx((42.5 - 30) / 0.06)
        assert value(tmp_path / "s", "temperature") == round(30 + 0.06 * 300)


def test_faults_are_of_the_engines_own_devices(tmp_path: Path) -> None:
    how, images = Hardware(), diffusion.load("h100-pixart-sigma")
    devices = [*how.devices(PROFILE), *how.devices(images)]
    with FakeNvml(tmp_path / "s", devices, 0) as fake_nvml:
        _, server = how.servers([PROFILE, images], fake_nvml)
        assert server._fault is not None
        server._fault(Fault("lost"))
        assert (value(tmp_path / "s", "error_all", 0), value(tmp_path / "s", "error_all", 1)) == (0, 15)
        with pytest.raises(IndexError, match="no device 1"):
            server._fault(Fault("lost", device=1))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_nvidias_own_library_reads_all_of_it(tmp_path: Path) -> None:
    library, state, how = build(tmp_path), tmp_path / "s", Hardware()
    with FakeNvml(state, how.devices(PROFILE), now_ns() - NS_PER_SECOND) as fake_nvml:
        server = one(how, fake_nvml)
        server.runner._draw(now_ns(), 74.0)

        def read() -> list[str]:
            env = {**os.environ, **environment(library, state)}
            command = [sys.executable, "-W", "ignore", "-c", READ]
            return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()

        celsius, clock, used, limit, energy, _ = map(float, read())
        assert (celsius, clock, used, limit) == (34, SM_MHZ, 0, 300)
        assert energy > 50_000
        server._fault(Fault("slow", call_seconds=0.05))
        server._fault(Fault("reset"))
        *_, after, slow = map(float, read())
        assert after < energy
        assert slow > 4 * 0.05, "each call takes that long"
        server._fault(Fault("slow"))
        server._fault(Fault("lost"))
        assert read() == ["GPU", "is", "lost"]


def test_the_limit_is_the_lowest_one_or_that_of_the_data_sheet() -> None:
    def limit(profile: Profile | diffusion.DiffusionProfile) -> float:
        return Hardware().devices(profile)[0].limit_watts

    assert limit(PROFILE) == 300.0
    assert limit(adjusted(load(DEFAULT), cap_watts=900.0)) == 700.0
    assert limit(load("h100x4-llama-3.1-70b")) == 700.0
    assert limit(diffusion.load("b200-pixart-sigma")) == 1000.0
    assert limit(replace(diffusion.load("b200-pixart-sigma"), device="another")) == 700.0


def test_what_cannot_be_is_said() -> None:
    assert deep_idle("45,10") == (45.0, 10.0)
    for wrong in ("45", "a,b", "-1,3"):
        with pytest.raises(HardwareError, match="must be WATTS,SECONDS"):
            deep_idle(wrong)
    with pytest.raises(HardwareError, match="idle is 74 W"):
        Hardware(deep_watts=90.0).board(PROFILE)
