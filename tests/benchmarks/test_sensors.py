"""CPU time of sampling: eight devices at 20 Hz, counters tracked to their edges, in one thread."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from proxy.units import NS_PER_MS, NS_PER_SECOND

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler"),
]

SECONDS = 12
CHILD = """
import sys, threading, time
from proxy.energy.sources.nvml import NvmlSource
from proxy.energy.sampling.sampler import Sampler
source = NvmlSource(); source.open()
stop = time.monotonic() + 5 + float(sys.argv[1])
marks = []
count = [0]
def take(samples):
    count[0] += len(samples)
    if not marks and time.monotonic() > stop - float(sys.argv[1]):
        marks.append((time.monotonic(), time.thread_time(), count[0]))
    if marks and time.monotonic() > stop and len(marks) == 1:
        marks.append((time.monotonic(), time.thread_time(), count[0]))
        sampler._stop.set()
sampler = Sampler(source, take, 20.0)
sampler.run()
(t0, c0, n0), (t1, c1, n1) = marks
print((c1 - c0) / (t1 - t0), (n1 - n0) / (t1 - t0), sampler.stats.skipped, len(sampler.stats.periods_s))
"""


@pytest.mark.parametrize("update_ms", [20, 100])
def test_eight_devices_at_20_hz_cost_less_than_a_hundredth_of_a_core(tmp_path: Path, update_ms: int) -> None:
    devices = [
        SimulatedDevice(update_ns=update_ms * NS_PER_MS, phase_ns=7 * i * NS_PER_MS % (update_ms * NS_PER_MS))
        for i in range(8)
    ]
    with FakeNvml(tmp_path / "s", devices, now_ns() - NS_PER_SECOND):
        env = {**os.environ, **environment(build(tmp_path / "lib"), tmp_path / "s")}
        command = [sys.executable, "-c", CHILD, str(SECONDS)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    core, rate, skipped, followed = (float(word) for word in done.stdout.split())
    print(  # noqa: T201
        f"\nsensors: 8 devices, updates {update_ms} ms: {core:.2%} of a core, {rate:.0f} samples/s, "
        f"{skipped:.0f} ticks skipped, {followed:.0f} counters followed"
    )
    assert followed == 8
    assert rate >= 0.8 * 8 * min(20, 1000 / update_ms)
    assert core <= 0.01
