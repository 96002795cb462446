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


# A prompt in one pass, in two chunks beside other requests, and its last token as a decoding step.
CHUNKS = """
from proxy.gpu.composition import Entry, tokens
from proxy.gpu.model import SIZES, Decoder

decoder = Decoder(SIZES["tiny"], 8, 128)
prompt = tokens(50)
at_once = decoder.forward([Entry(0, prompt, 0)])
other = decoder.forward([Entry(3, prompt[:8], 0)])
decoder.forward([Entry(1, prompt[:20], 0)])
decoder.forward([Entry(1, prompt[20:49], 20), Entry(2, prompt[:7], 0)])
assert decoder.forward([Entry(1, prompt[49:], 49), Entry(2, prompt[7:8], 7)]) == at_once + other
"""


def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the Python that has torch, with this package and its dependencies."""
    if not install.PYTHON.exists():
        pytest.skip(install.missing() or "no torch")
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    return subprocess.run(
        [install.PYTHON, *words],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_chunks_and_batches_compute_the_same_tokens_as_one_pass() -> None:
    done = run("-c", CHUNKS)
    assert done.returncode == 0, done.stderr


def test_all_parts_run_and_the_page_states_that_it_is_simulated(tmp_path: Path) -> None:
    done = run("-m", "proxy.gpu", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Measurements on a GPU (SIMULATED)")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == {}
    *in_process, on_wire = found["truth"]
    assert all(row["scores"][0]["median"] < 0.03 for row in in_process)
    # In real time: a busy machine delays steps and chunks, so only the sums are sharp.
    assert 0.95 < on_wire["closure"] < 1.05
    assert [curve["energy_source"] for curve in found["curves"]] == ["nvml-simulated"] * 2
    levels = [level for curve in found["curves"] for level in curve["levels"]]
    assert all(level["failed"] == 0 and level["tokens_per_joule"] > 0 for level in levels)
