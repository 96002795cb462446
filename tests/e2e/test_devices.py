"""``jouleproxy devices`` as installed, with the real nvidia-ml-py over the stand-in library."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from tests.timing import PATIENCE_SECONDS

COMMAND = Path(sys.executable).with_name("jouleproxy")

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")


def devices(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "devices", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_two_simulated_devices_are_found_through_nvml(tmp_path: Path) -> None:
    library, state = build(tmp_path / "lib"), tmp_path / "state"
    with FakeNvml(state, [SimulatedDevice(), SimulatedDevice(name="second (simulated)")], now_ns()):
        done = devices(environment(library, state), "--json")
        one = devices(environment(library, state), "--devices", "1")
        wrong = devices(environment(library, state), "--source", "nvml", "--devices", "7")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [device["name"] for device in found["devices"]] == [
        "NVIDIA H100 80GB HBM3 (simulated)",
        "second (simulated)",
    ]
    assert "simulated" in found["source"]
    assert "second (simulated)" in one.stdout
    assert "H100" not in one.stdout
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "no device 7; there are 2 (0..1)" in wrong.stderr
