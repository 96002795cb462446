"""``make gpu`` without a GPU: torch for the CPU and the simulated NVML library; all parts."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.engines import install

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900.0  # the promise for a GPU: 15 minutes


def test_all_parts_run_and_the_page_states_that_it_is_simulated(tmp_path: Path) -> None:
    if not install.PYTHON.exists():
        pytest.skip(install.missing() or "no torch")
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [install.PYTHON, "-m", "proxy.gpu", "--out", tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Measurements on a GPU (SIMULATED)")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == {}
    assert all(row["scores"][0]["median"] < 0.03 for row in found["truth"])
    assert [curve["energy_source"] for curve in found["curves"]] == ["nvml-simulated"] * 2
    levels = [level for curve in found["curves"] for level in curve["levels"]]
    assert all(level["failed"] == 0 and level["tokens_per_joule"] > 0 for level in levels)
