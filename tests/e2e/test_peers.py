"""nvitop, gpustat, Zeus and jouleproxy side by side on one device: they agree on its energy to one update.

nvitop and gpustat show power only; on a constant load that is energy. Each is the real package.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.simulator.standin import SimulatedDevice, Standin, build, environment
from proxy.units import NS_PER_SECOND

WATTS, UPDATE_S = 200.0, 0.02
PEERS = ("nvitop", "gpustat", "zeus")

pytestmark = [
    pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler"),
    pytest.mark.skipif(not all(map(importlib.util.find_spec, PEERS)), reason=f"needs {', '.join(PEERS)}"),
]

SIDE_BY_SIDE = """
import time, warnings
warnings.simplefilter("ignore")
import gpustat, nvitop
from zeus.monitor import ZeusMonitor
from proxy.core.energy_series import EnergySeries
from proxy.energy.nvml import NvmlSource
from proxy.energy.sampler import Sampler
source = NvmlSource(); source.open()
series = EnergySeries()
sampler = Sampler(source, lambda samples: [series.feed(s) for s in samples] and None)
sampler.start()
zeus = ZeusMonitor(gpu_indices=[0], cpu_indices=[], approx_instant_energy=False)
device = nvitop.Device(0)
time.sleep(1.0)
start = time.monotonic_ns()
zeus.begin_window("w", sync_execution=False)
watts = {"nvitop": [], "gpustat": []}
for _ in range(8):
    time.sleep(0.25)
    watts["nvitop"].append(device.power_usage() / 1000)
    watts["gpustat"].append(float(gpustat.new_query()[0].power_draw))
joules = zeus.end_window("w", sync_execution=False).total_energy
end = time.monotonic_ns()
time.sleep(0.2)
sampler.stop()
print("RESULT", start, end, "zeus", joules, "jouleproxy", series.joules_at(end) - series.joules_at(start),
      *(f"{name} {sum(w) / len(w) * (end - start) / 1e9}" for name, w in watts.items()))
"""


def test_all_agree_to_one_update(tmp_path: Path) -> None:
    device = SimulatedDevice(idle_watts=WATTS, update_ns=round(UPDATE_S * NS_PER_SECOND))
    with Standin(tmp_path / "s", [device], now_ns() - 2 * NS_PER_SECOND) as standin:
        env = {**os.environ, **environment(build(tmp_path / "lib"), tmp_path / "s")}
        out = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SIDE_BY_SIDE],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        start, end, *rest = out.split("RESULT ")[1].split()
        truth = standin.truth_joules(0, int(end)) - standin.truth_joules(0, int(start))
    joules = {name: float(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    assert set(joules) == {*PEERS, "jouleproxy"}
    for name, value in joules.items():
        # Zeus reads the counter wherever it is between two updates: one at each end of its window.
        ends = 2 if name == "zeus" else 1
        assert abs(value - truth) <= ends * WATTS * UPDATE_S + 0.01, name
