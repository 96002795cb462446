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
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
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
from proxy.core.energy.energy_series import EnergySeries
from proxy.energy.sources.nvml import NvmlSource
from proxy.energy.sampling.sampler import Sampler
source = NvmlSource(); source.open()
series, stamps = EnergySeries(), []
def keep(samples):
    for sample in samples:
        series.feed(sample)
        stamps.append(sample.t_ns)
sampler = Sampler(source, keep)
sampler.start()
zeus = ZeusMonitor(gpu_indices=[0], cpu_indices=[], approx_instant_energy=False)
device = nvitop.Device(0)
def settled(t_ns):  # until our samples reach beyond t_ns
    while not stamps or stamps[-1] <= t_ns:
        time.sleep(0.02)
settled(time.monotonic_ns())
start = time.monotonic_ns()
zeus.begin_window("w", sync_execution=False)
begun = time.monotonic_ns()
watts = {"nvitop": [], "gpustat": []}
for _ in range(8):
    time.sleep(0.25)
    watts["nvitop"].append(device.power_usage() / 1000)
    watts["gpustat"].append(float(gpustat.new_query()[0].power_draw))
ending = time.monotonic_ns()
joules = zeus.end_window("w", sync_execution=False).total_energy
end = time.monotonic_ns()
settled(end)
sampler.stop()
ours = series.joules_at(end) - series.joules_at(start)
print("RESULT", start, begun, ending, end, "zeus", joules, "jouleproxy", ours,
      *(f"{name} {sum(w) / len(w) * (end - start) / 1e9}" for name, w in watts.items()))
"""


def test_all_agree_to_one_update(tmp_path: Path) -> None:
    device = SimulatedDevice(idle_watts=WATTS, update_ns=round(UPDATE_S * NS_PER_SECOND))
    with FakeNvml(tmp_path / "s", [device], now_ns() - 2 * NS_PER_SECOND) as fake_nvml:
        env = {**os.environ, **environment(build(tmp_path / "lib"), tmp_path / "s")}
        out = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SIDE_BY_SIDE],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        words = out.split("RESULT ")[1].split()
        start, begun, ending, end = map(int, words[:4])
        rest = words[4:]
        truth = fake_nvml.truth_joules(0, end) - fake_nvml.truth_joules(0, start)
    joules = {name: float(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    assert set(joules) == {*PEERS, "jouleproxy"}
    within = WATTS * UPDATE_S + 0.01
    # Zeus reads the counter wherever it is between two updates: one at each end of its window. When it reads
    # within its two calls is not known, and a busy machine may stop the program there.
    inside = ((begun - start) + (end - ending)) / NS_PER_SECOND
    for name, value in joules.items():
        allowed = within + WATTS * (UPDATE_S + inside) if name == "zeus" else within
        assert abs(value - truth) <= allowed, name
