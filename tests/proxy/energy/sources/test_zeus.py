import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.core.attribution import Attributor
from proxy.core.events import Arrive, Device, End, Event, Sample
from proxy.energy.source import SensorError
from proxy.energy.sources.zeus import ZeusdSource, ZeusSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from tests.fakes.zeusd import zeusd

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or importlib.util.find_spec("zeus") is None,
    reason="needs gcc and the package zeus",
)

READ = """
from proxy.energy.sources.nvml import NvmlSource
from proxy.energy.sources.zeus import ZeusSource
ours, zeus = NvmlSource(), ZeusSource()
ours.open(); zeus.open()
for a, b in zip(ours.read(), zeus.read(), strict=True):
    print("PAIR", b.source, a.device == b.device, b.energy_mj - a.energy_mj)
"""

# A polled reading that does not change is dropped there, and with it the energy of a constant load.
# Zeus raises RuntimeError unless its polling process is ready within 10 s, which a busy machine may miss.
POLLING = """
import sys, time
from zeus.monitor.power import PowerMonitor
from proxy.energy.sources.nvml import NvmlSource
def monitoring():
    try:
        monitor = PowerMonitor(gpu_indices=[0], update_period=0.05, power_domains=["device_instant"])
    except RuntimeError:
        return None
    end = time.monotonic() + 10
    while monitor.get_power() is None and time.monotonic() < end:
        time.sleep(0.05)
    return monitor
if __name__ == "__main__":
    ours = NvmlSource(); ours.open()
    monitor = monitoring()
    def look():
        while not (samples := ours.read()):
            pass
        return samples[0]
    start, first = time.time(), look()
    time.sleep(1.0)
    end, last = time.time(), look()
    time.sleep(0.3)
    polled = "none"
    if monitor is not None:
        monitor.get_energy(start, end)
        polled = next(iter(monitor.get_energy(start, end).values()))
    joules = (last.energy_mj - first.energy_mj) / 1000
    print("RESULT", polled, joules, first.t_ns, last.t_ns)
"""


# Two windows that overlap, as those of two concurrent requests: together they hold more than was used.
# The stamps say how long each really was.
WINDOWS = """
import time
from zeus.monitor import ZeusMonitor
from proxy.energy.sources.nvml import NvmlSource
m = ZeusMonitor(gpu_indices=[0], cpu_indices=[], approx_instant_energy=False)
ours = NvmlSource(); ours.open()
samples, stamps = [], []
def at(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        samples.extend(ours.read())
        time.sleep(0.02)
def begin(name):
    stamps.append(time.monotonic_ns())
    m.begin_window(name, sync_execution=False)
def end(name):
    joules = m.end_window(name, sync_execution=False).total_energy
    stamps.append(time.monotonic_ns())
    return joules
at(0.1)
begin("a"); at(0.3)
begin("b"); at(0.3)
a = end("a"); at(0.3)
b = end("b"); at(0.1)
print("RESULT", a + b, *stamps)
for s in samples: print("SAMPLE", s.t_ns, s.energy_mj)
"""

RAPL = """
import os, sys
import zeus.device.cpu.rapl as rapl
rapl.RAPL_DIR = sys.argv[1]
from proxy.energy.sources.zeus import RaplSource
from proxy.energy.source import SensorError
source = RaplSource()
try:
    print([(f.device.id, f.device.kind) for f in source.open()])
except SensorError as error:
    print(error); raise SystemExit
def show(): print([(s.device, s.energy_mj, s.source) for s in source.read()])
show()
for line in sys.stdin:
    path, value = line.split()
    open(path, "w").write(value)
    show()
"""


def _child(code: str, library: Path, state: Path) -> str:
    env = {**os.environ, **environment(library, state)}
    script = state.with_suffix(".py")
    script.write_text(code)
    command = [sys.executable, "-W", "ignore", str(script)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_zeus_reads_the_same_counters(tmp_path: Path) -> None:
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=200, update_ns=0)] * 2, now_ns()):
        lines = [x for x in _child(READ, library, tmp_path / "s").splitlines() if "PAIR" in x]
    assert len(lines) == 2
    for line in lines:
        _, source, same, difference = line.split()
        assert (source, same) == ("zeus-simulated", "True")
        assert 0 <= float(difference) < 200 * 500  # at most half a second between the two readings


def test_constant_power_is_measured_where_polling_loses_it(tmp_path: Path) -> None:
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=80)], now_ns()) as fake_nvml:
        out = _child(POLLING, library, tmp_path / "s").split("RESULT ")[-1].split()
        first_ns, last_ns = int(out[2]), int(out[3])
        truth = fake_nvml.truth_joules(0, last_ns) - fake_nvml.truth_joules(0, first_ns)
    one_update = 80 * 0.02
    assert abs(float(out[1]) - truth) <= one_update
    if out[0] == "none":
        pytest.skip("Zeus gave up after 10 s: this machine was too busy to start its polling process")
    assert float(out[0]) < truth / 2  # measured with zeus 0.16: 0 J


def test_overlapping_requests_do_not_count_energy_twice(tmp_path: Path) -> None:
    library = build(tmp_path)
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=200)], now_ns()):
        out = _child(WINDOWS, library, tmp_path / "s")
    both, *stamps = (float(word) for word in out.split("RESULT ")[1].split("\n")[0].split())
    core = Attributor("overlap", [Device("gpu0")], settle_s=0.0)
    events: list[Event] = [
        Sample(int(t), "gpu0", energy_mj=float(mj))
        for t, mj in (line.split()[1:] for line in out.splitlines() if line.startswith("SAMPLE"))
    ]
    begin_a, begin_b, end_a, end_b = stamps
    for name, start, end in (("a", begin_a, end_a), ("b", begin_b, end_b)):
        events.append(Arrive(int(start) + 1, name, devices=("gpu0",)))
        events.append(End(int(end), name, 200))
    for event in sorted(events, key=lambda e: e.t_ns or 0):
        core.feed(event)
    core.flush()
    ours = sum(share.joules or 0.0 for share in core.drain())
    # Nominally 0.6 s and 0.6 s against the 0.9 s in which the energy was used.
    windows, used = ((end_a - begin_a) + (end_b - begin_b)) / 1e9, (end_b - begin_a) / 1e9
    assert both == pytest.approx(200 * windows, rel=0.1)
    assert ours == pytest.approx(200 * used, rel=0.1)
    assert both > 1.15 * ours


def _powercap(root: Path) -> Path:
    for path, name, energy in (
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:0/intel-rapl:0:0", "dram", 50),
        ("intel-rapl:0/intel-rapl:0:1", "core", 7),
    ):
        (root / path).mkdir(parents=True)
        for file, text in (("name", name), ("energy_uj", f"{energy}000"), ("max_energy_range_uj", "1000000")):
            (root / path / file).write_text(text)
    return root


def test_rapl_is_packages_and_dram_and_wraps(tmp_path: Path) -> None:
    root = _powercap(tmp_path / "powercap")
    command = [sys.executable, "-W", "ignore", "-c", RAPL, str(root)]
    lines = f"{root}/intel-rapl:0/energy_uj 100000\n"  # from 900 over 1000 to 100
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    found, first, wrapped = done.stdout.splitlines()
    assert found == "[('cpu0', 'host'), ('dram0', 'host')]"
    assert first == "[('cpu0', 900.0, 'rapl'), ('dram0', 50.0, 'rapl')]"
    assert wrapped == "[('cpu0', 1100.0, 'rapl'), ('dram0', 50.0, 'rapl')]"


def test_no_rapl_says_the_way_out(tmp_path: Path) -> None:
    if Path("/zeus_sys/class/powercap").exists():
        pytest.skip("this machine has RAPL where Zeus looks for it")
    command = [sys.executable, "-W", "ignore", "-c", RAPL, str(tmp_path / "none")]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert "rapl:" in done.stdout
    assert "ZEUSD_SOCK_PATH" in done.stdout


def test_counters_of_another_host_by_zeusd() -> None:
    with zeusd() as daemon:
        source = ZeusdSource(f"127.0.0.1:{daemon.port}", clock=lambda: 7)
        found = source.open()
        assert [(f.device.id, f.device.name) for f in found] == [
            ("127.0.0.1/gpu0", "MI300X 0"),
            ("127.0.0.1/gpu1", "MI300X 1"),
        ]
        daemon.energy_mj[1] = 2500
        assert source.read() == [
            Sample(7, "127.0.0.1/gpu0", energy_mj=1000.0, source="zeusd"),
            Sample(7, "127.0.0.1/gpu1", energy_mj=2500.0, source="zeusd"),
        ]
        daemon.fail = True
        with pytest.raises(SensorError, match="zeusd"):
            source.read()
        source.close()


def test_a_zeusd_that_is_not_there() -> None:
    with pytest.raises(SensorError, match="Cannot reach Zeusd"):
        ZeusdSource("127.0.0.1:1").open()
    with pytest.raises(SensorError, match="must be HOST:PORT"):
        ZeusdSource("gpuhost")


@dataclass(frozen=True, slots=True)
class JetsonReading:
    cpu_energy_mj: float
    gpu_energy_mj: float


class Jetson:
    """What Zeus' SoC interface gives for a Jetson."""

    def get_available_metrics(self) -> set[str]:
        return {"cpu_energy_mj", "gpu_energy_mj", "total_energy_mj"}

    def get_total_energy_consumption(self) -> JetsonReading:
        return JetsonReading(30.0, 70.0)


def test_the_parts_of_a_soc_with_counters_of_their_own() -> None:
    source = ZeusSource(clock=lambda: 7)
    found = source._open_soc(Jetson())
    assert [(f.device.id, f.device.kind) for f in found] == [("gpu0", "gpu"), ("soc-cpu_energy", "host")]
    assert [(s.device, s.energy_mj) for s in source.read()] == [("gpu0", 70.0), ("soc-cpu_energy", 30.0)]
    source.close()
