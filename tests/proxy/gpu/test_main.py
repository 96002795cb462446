"""The command, on the simulated NVML library in a process of its own: NVML is loaded once in a process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import PATIENCE_SECONDS

# Parts a, c and d with a runner that computes nothing: torch is not among the test tools.
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from proxy.gpu import parts, report
from proxy.gpu.device import SimulatedGpu
from tests.proxy.gpu.modelled import Counting

out = Path(sys.argv[1])
device = SimulatedGpu(out)
found = report.Report(True, "none", {})
parts.run(["a", "c", "d"], found, device, Counting, replace(parts.TINY, sets=parts.TINY.sets[:2]), out)
device.close()
report.write(found, out)
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("gpu")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if "no C compiler" in done.stderr:
        pytest.skip("no C compiler")
    assert done.returncode == 0, done.stderr
    written: dict[str, object] = json.loads((out / "gpu.json").read_text())
    return written


def test_no_part_fails(found: dict[str, object]) -> None:
    assert found["failed"] == {}


def test_the_counter_and_its_readings_are_those_of_the_simulated_device(found: dict[str, object]) -> None:
    counter, readings, agreement = found["counter"], found["readings"], found["agreement"]
    assert isinstance(counter, dict)
    assert isinstance(readings, dict)
    assert isinstance(agreement, list)
    assert counter["period_ms"] == pytest.approx(20.0, abs=0.5)
    assert "simulated" in readings["name"]["value"]
    assert [row["load"] for row in agreement] == ["idle", "copy", "matmul"]
    for row in agreement:
        assert row["counter"] == pytest.approx(row["instant"], rel=0.01)


def test_the_truth_and_the_form_are_those_of_the_machine(found: dict[str, object]) -> None:
    truth, forms = found["truth"], found["forms"]
    assert isinstance(truth, list)
    assert isinstance(forms, list)
    assert truth[1]["closure"] == pytest.approx(1.0, abs=0.01)
    assert truth[1]["scores"][0]["median"] < 0.03
    assert forms[0]["overlap"] is None
    assert forms[0]["token_s"] == pytest.approx(2.3e-5, rel=0.03)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_without_torch_one_line_states_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proxy.gpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "install torch" in done.stderr
    assert len(done.stderr.splitlines()) == 1
