"""The load generator against a real engine, through the proxy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.proxied import Jouleproxy
from tests.engines.vllm import API_KEY, NAME

RATE = 5.0
SECONDS = 10.0


def _loadgen(proxy: Jouleproxy, *arguments: str, model: str = NAME) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("loadgen")), *arguments]
    command += ["--url", proxy.url, "--admin-url", proxy.admin, "--model", model]
    command += ["--api-key", API_KEY]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_rate(proxy: Jouleproxy, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = _loadgen(
        proxy,
        *("--rate", str(RATE), "--slo", "5s", "--duration", f"{SECONDS:.0f}s", "--seed", "0"),
        *("--input", "64", "--output", "32", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["verdict"] == "pass"
    (point,) = run["points"]
    assert point["failed"] == 0
    assert point["slo_met"]
    assert point["requests"] == pytest.approx(RATE * SECONDS, rel=0.5)  # Poisson: sd 14 %
    assert 0 < point["ttft_seconds"]["p50"] < point["e2e_seconds"]["p50"]
    assert point["joules_per_request"] > 0
    assert point["watts"] == pytest.approx(proxy.device.watts, rel=0.1)
    assert (out / "requests.jsonl.zst").stat().st_size > 0


def test_a_wrong_model_is_reported_before_the_run(proxy: Jouleproxy, tmp_path: Path) -> None:
    done = _loadgen(proxy, "--rate", "1", "--duration", "1s", "--out", str(tmp_path / "run"), model="other")
    assert done.returncode == 2
    assert "other" in done.stderr
