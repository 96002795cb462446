"""The production NVML code on the stand-in: one child process a scenario set, true pynvml inside."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from proxy.units import NS_PER_MS, NS_PER_SECOND

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

READ = """
from proxy.config import MeterConfig
from proxy.energy.choice import choose
import sys
choice = choose(MeterConfig(devices=sys.argv[1]))
print("SOURCE", choice.name)
for line in choice.lines: print(line)
for opened in choice.opened:
    for f in choice.found: print("READING", f.device.id, f.reading)
    for s in opened.source.read(): print("SAMPLE", s.device, s.energy_mj, s.power_mw)
"""

RING = """
import ctypes, sys
from proxy.clock import WallAnchor
from proxy.energy.sources.nvml import NvmlSource
library, begin_ns = ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
anchor = WallAnchor(0, 0)
source = NvmlSource(clock=lambda: now_ns, anchor=lambda: anchor)
for after_ms in map(int, sys.stdin):
    now_ns = begin_ns + after_ms * 1_000_000
    library.jouleproxy_standin_set_clock(ctypes.c_int64(now_ns))
    if not source.name.endswith("simulated"): source.open()
    print(*[s.t_ns for s in source.read()])
"""

COUNTER = """
import sys
from proxy.energy.sources.nvml import NvmlSource
source = NvmlSource(); source.open()
for line in sys.stdin:
    print(source.read()[0].energy_mj, flush=True)
"""

HOST = """
from proxy.energy.sources.nvml import NvmlSource
source = NvmlSource(host=True)
print([(f.device.id, f.device.kind, f.reading) for f in source.open()])
print([(s.device, s.power_mw) for s in source.read()])
"""

LOSS = """
import sys
from proxy.energy.sources.nvml import NvmlSource
now = [0]
source = NvmlSource(clock=lambda: now[0])
source.open()
for line in sys.stdin:
    now[0] += int(line)
    print(sorted(s.device for s in source.read()), source.failures(), flush=True)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


def _read(library: Path, state: Path, devices: str = "auto", **extra: str) -> str:
    env = {**os.environ, **environment(library, state), **extra}
    command = [sys.executable, "-c", READ, devices]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_counter_first_and_the_source_says_simulated(library: Path, tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, now_ns() - NS_PER_SECOND) as fake_nvml:
        out = _read(library, tmp_path / "s")
        limit_mj = fake_nvml.truth_joules(0, now_ns()) * 1000
    assert "SOURCE nvml-simulated" in out
    assert "READING gpu1 energy counter" in out
    energy = float(out.split("SAMPLE gpu0 ")[1].split()[0])
    assert 70_000 <= energy <= limit_mj


@pytest.mark.parametrize(
    ("settings", "reading"),
    [
        ({"error_energy": 3}, "power (instant)"),
        ({"error_energy": 3, "error_fields": 3}, "power (driver's ring buffer)"),
        ({"error_energy": 3, "error_fields": 3, "error_samples": 3}, "power (GetPowerUsage, 1 s average)"),
        (
            {"error_energy": 3, "error_fields": 3, "error_samples": 3, "architecture": 5},
            "power (GetPowerUsage)",
        ),
    ],
)
def test_falls_back_to_power(library: Path, tmp_path: Path, settings: dict[str, int], reading: str) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=123)], now_ns()) as fake_nvml:
        fake_nvml.configure(0, **settings)
        out = _read(library, tmp_path / "s")
    assert f"READING gpu0 {reading}" in out
    assert "SAMPLE gpu0 None 123000.0" in out


def test_selects_by_index_uuid_and_environment(library: Path, tmp_path: Path) -> None:
    devices = [SimulatedDevice(uuid=f"GPU-{name}") for name in ("aa", "bb", "cc")]
    with FakeNvml(tmp_path / "s", devices, now_ns()):
        chosen = _read(library, tmp_path / "s", "0,GPU-cc")
        visible = _read(library, tmp_path / "s", CUDA_VISIBLE_DEVICES="1")
    assert [f"gpu{i}" in chosen for i in range(3)] == [True, False, True]
    assert [f"gpu{i}" in visible for i in range(3)] == [False, True, False]


def test_mig_is_refused_with_the_way_out(library: Path, tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], now_ns()) as fake_nvml:
        fake_nvml.configure(0, mig=1)
        out = _read(library, tmp_path / "s")
    assert "SOURCE None" in out
    assert "MIG mode" in out
    assert "-mig 0" in out


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"error_all": 15}, "GPU is lost"),
        ({"error_all": 999}, "Unknown Error"),
        ({"error_all": 4}, "Insufficient Permissions"),
        (
            {"error_energy": 3, "error_fields": 3, "error_samples": 3, "error_power": 3},
            "neither an energy nor a power reading",
        ),
        (
            {"error_energy": 13, "error_fields": 13, "error_samples": 13, "error_power": 13},
            "neither an energy",
        ),
        ({"mig": 1}, "MIG mode"),
    ],
)
@pytest.mark.parametrize("devices", ["auto", "0"])
def test_a_gpu_that_cannot_be_measured_is_left_out_and_named(
    library: Path, tmp_path: Path, settings: dict[str, int], reason: str, devices: str
) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, now_ns()) as fake_nvml:
        fake_nvml.configure(1, **settings)
        out = _read(library, tmp_path / "s", devices)
    assert "READING gpu0 energy counter" in out
    assert "READING gpu1" not in out
    if devices == "auto":
        (line,) = [line for line in out.splitlines() if "gpu1" in line]
        assert line.startswith("energy: gpu1 is skipped: ")
        assert reason in line


def test_power_is_read_beside_a_counter_that_stands_still(library: Path, tmp_path: Path) -> None:
    code = """
from proxy.energy.sources.nvml import NvmlSource
now = [0]
source = NvmlSource(clock=lambda: now[0])
print(source.open()[0].device.max_watts)
for now[0] in (0, 400_000_000, 600_000_000):
    print([(s.energy_mj is None, s.power_mw) for s in source.read()])
"""
    still = SimulatedDevice(idle_watts=123, update_ns=10**15, instant_ns=NS_PER_MS)
    with FakeNvml(tmp_path / "s", [still], now_ns() - NS_PER_SECOND):
        env = {**os.environ, **environment(library, tmp_path / "s")}
        command = [sys.executable, "-c", code]
        out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    limit, *readings = out.splitlines()
    assert float(limit) == 1_050.0
    assert readings == ["[(False, None)]", "[(False, None)]", "[(False, 123000.0)]"]


def test_no_driver_and_no_library_are_told_apart(library: Path, tmp_path: Path) -> None:
    assert "driver is not loaded" in _read(library, tmp_path / "absent")
    out = _read(tmp_path / "nowhere" / "lib", tmp_path / "absent")
    assert "no libnvidia-ml.so.1" in out or "driver is not loaded" in out  # a machine with a GPU
    assert "energy is unknown" in out or "SOURCE nvml" in out


def test_a_lost_device_is_left_out_reported_and_comes_back(library: Path, tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, now_ns()) as fake_nvml:
        env = {**os.environ, **environment(library, tmp_path / "s")}
        with subprocess.Popen(
            [sys.executable, "-c", LOSS],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None

            def read(after_ns: int) -> str:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(f"{after_ns}\n")
                child.stdin.flush()
                return child.stdout.readline()

            assert read(1) == "['gpu0', 'gpu1'] {}\n"
            fake_nvml.lose(1)
            assert read(1) == "['gpu0'] {'gpu1': 'GPU is lost'}\n"
            fake_nvml.restore(1)
            assert read(1).startswith("['gpu0'] {'gpu1'")  # not asked again within a second
            assert read(NS_PER_SECOND) == "['gpu0', 'gpu1'] {}\n"
            child.stdin.close()


def test_every_sample_of_the_ring_buffer_is_read_once(library: Path, tmp_path: Path) -> None:
    begin_ns, period_ns, capacity = 1_000 * NS_PER_SECOND, 10 * NS_PER_MS, 120
    reads_ms = [*range(0, 300, 7), *range(300, 331), 1_000]
    with FakeNvml(tmp_path / "s", [SimulatedDevice(update_ns=period_ns)], begin_ns) as fake_nvml:
        fake_nvml.configure(0, error_energy=3, error_fields=3)
        env = {**os.environ, **environment(library, tmp_path / "s")}
        command = [sys.executable, "-c", RING, str(library), str(begin_ns)]
        asked = "\n".join(map(str, reads_ms))
        done = subprocess.run(command, env=env, input=asked, capture_output=True, text=True, check=True)
    reads = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(reads) == len(reads_ms)
    assert len(reads[0]) == capacity  # the entire ring
    stamps = [stamp for read in reads for stamp in read]
    assert len(stamps) == capacity + 1_000 // 10
    assert {b - a for a, b in itertools.pairwise(stamps)} == {period_ns}


def test_a_segment_written_late_does_not_turn_the_counter_back(library: Path, tmp_path: Path) -> None:
    start_ns = now_ns() - NS_PER_SECOND
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=700)], start_ns) as fake_nvml:
        env = {**os.environ, **environment(library, tmp_path / "s")}
        with subprocess.Popen(
            [sys.executable, "-c", COUNTER], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as reader:
            ask, answers = reader.stdin, reader.stdout
            assert ask is not None
            assert answers is not None

            def read() -> float:
                print(file=ask, flush=True)
                return float(answers.readline())

            first = read()
            fake_nvml.append(0, start_ns + NS_PER_SECOND // 2, 1.0)
            assert read() == first
            fake_nvml.reset(0, now_ns())
            assert read() < first
            ask.close()


def test_the_rest_of_a_grace_hopper_module_is_a_host_device(library: Path, tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=100)], now_ns() - NS_PER_SECOND) as fake_nvml:
        fake_nvml.configure(0, module_watts=80)
        env = {**os.environ, **environment(library, tmp_path / "s")}
        command = [sys.executable, "-c", HOST]
        found, samples = subprocess.run(
            command, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    assert "('host0', 'host', 'power (module less GPU, instant)')" in found
    assert "('host0', 80000.0)" in samples
