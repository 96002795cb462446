import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.simulator.standin import SimulatedDevice, Standin, build, environment

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or importlib.util.find_spec("zeus") is None,
    reason="needs gcc and the package zeus",
)

READ = """
from proxy.energy.nvml import NvmlSource
from proxy.energy.zeus import ZeusSource
ours, zeus = NvmlSource(), ZeusSource()
ours.open(); zeus.open()
for a, b in zip(ours.read(), zeus.read(), strict=True):
    print("PAIR", b.source, a.device == b.device, b.energy_mj - a.energy_mj)
"""

# A polled reading that does not change is dropped there, and with it the energy of a constant load.
POLLING = """
import sys, time
from zeus.monitor.power import PowerMonitor
from proxy.energy.nvml import NvmlSource
if __name__ == "__main__":
    ours = NvmlSource(); ours.open()
    monitor = PowerMonitor(gpu_indices=[0], update_period=0.05)
    time.sleep(3.0)  # its polling process takes that long to start
    start, first = time.time(), ours.read()[0]
    time.sleep(1.0)
    end, last = time.time(), ours.read()[0]
    time.sleep(0.3)
    polled = monitor.get_energy(start, end)
    polled = next(iter(monitor.get_energy(start, end).values()))
    joules = (last.energy_mj - first.energy_mj) / 1000
    print("RESULT", polled, joules, first.t_ns, last.t_ns)
"""


def _child(code: str, library: Path, state: Path) -> str:
    env = {**os.environ, **environment(library, state)}
    script = state.with_suffix(".py")
    script.write_text(code)
    command = [sys.executable, "-W", "ignore", str(script)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_zeus_reads_the_same_counters(tmp_path: Path) -> None:
    library = build(tmp_path)
    with Standin(tmp_path / "s", [SimulatedDevice(idle_watts=200, update_ns=0)] * 2, now_ns()):
        lines = [x for x in _child(READ, library, tmp_path / "s").splitlines() if "PAIR" in x]
    assert len(lines) == 2
    for line in lines:
        _, source, same, difference = line.split()
        assert (source, same) == ("zeus-simulated", "True")
        assert 0 <= float(difference) < 200 * 500  # at most half a second between the two readings


def test_constant_power_is_measured_where_polling_loses_it(tmp_path: Path) -> None:
    library = build(tmp_path)
    with Standin(tmp_path / "s", [SimulatedDevice(idle_watts=80)], now_ns()) as standin:
        out = _child(POLLING, library, tmp_path / "s").split("RESULT ")[-1].split()
        first_ns, last_ns = int(out[2]), int(out[3])
        truth = standin.truth_joules(0, last_ns) - standin.truth_joules(0, first_ns)
    polled, ours = float(out[0]), float(out[1])
    one_update = 80 * 0.02
    assert abs(ours - truth) <= one_update
    assert polled < truth / 2  # measured with zeus 0.16: 0 J
