import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.core.energy import power_timeline as layout
from proxy.simulator.gpu.fake_nvml import (
    FakeNvml,
    FakeNvmlError,
    SimulatedDevice,
    build,
    environment,
)
from proxy.units import NS_PER_SECOND

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

ZEUS = """
import warnings; warnings.simplefilter("ignore")
from zeus.monitor import ZeusMonitor
import pynvml, time
m = ZeusMonitor(gpu_indices=[0], cpu_indices=[], approx_instant_energy=False)
m.begin_window("w", sync_execution=False)
h = pynvml.nvmlDeviceGetHandleByIndex(0)
a = pynvml.nvmlDeviceGetTotalEnergyConsumption(h)
time.sleep(0.5)
b = pynvml.nvmlDeviceGetTotalEnergyConsumption(h)
print("zeus", m.end_window("w", sync_execution=False).total_energy, (b - a) / 1000)
"""


def _child(library: Path, state: Path, *arguments: str) -> str:
    env = {**os.environ, **environment(library, state)}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_truth_is_the_exact_integral(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=100)], 0) as fake_nvml:
        fake_nvml.append(0, NS_PER_SECOND, 300.0)
        fake_nvml.append(0, 2 * NS_PER_SECOND, 50.0)
        assert fake_nvml.truth_joules(0, NS_PER_SECOND // 2) == 50.0
        assert fake_nvml.truth_joules(0, 4 * NS_PER_SECOND) == 100 + 300 + 100


def test_ring_keeps_the_sum_when_it_wraps(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=100)], 0) as fake_nvml:
        for k in range(1, 3 * layout.SEGMENTS):
            fake_nvml.append(0, k * 1_000_000, 100.0)
        end_ns = 3 * layout.SEGMENTS * 1_000_000
        assert fake_nvml.truth_joules(0, end_ns) == pytest.approx(end_ns / 1e7, rel=1e-12)
        with pytest.raises(ValueError, match="older than"):
            fake_nvml.truth_joules(0, 1)


def test_refuses_what_cannot_be(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], 10) as fake_nvml:
        with pytest.raises(ValueError, match="before the last one"):
            fake_nvml.append(0, 9, 1.0)
        with pytest.raises(ValueError, match="unknown setting"):
            fake_nvml.configure(0, colour=1)


def test_without_a_compiler_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FakeNvmlError, match="install gcc"):
        build(tmp_path)


@needs_gcc
def test_both_sides_have_one_layout(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build(tmp_path)))
    assert library.standin_device_bytes() == layout.DEVICE_BYTES


@needs_gcc
def test_zeus_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("zeus")
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=200)], now_ns()):
        line = _child(library, tmp_path / "s", "-c", ZEUS).split("zeus ")[-1]
    measured, counted = (float(x) for x in line.split())
    assert measured == pytest.approx(counted, abs=2 * 200 * 0.02)


@needs_gcc
def test_gpustat_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("gpustat")
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, now_ns()):
        assert _child(library, tmp_path / "s", "-m", "gpustat").count("(simulated)") == 2


@needs_gcc
def test_nvitop_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("nvitop")
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=70)], now_ns()):
        assert "70W / 700W" in _child(library, tmp_path / "s", "-m", "nvitop", "-1")
