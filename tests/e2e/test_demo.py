"""``jouleproxy demo`` as installed: alive within seconds; ``--once``: a curve that rises, its files."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.timing import PATIENCE_SECONDS

COMMAND = Path(sys.executable).with_name("jouleproxy")


def test_tokens_per_joule_rise_with_concurrency_and_the_files_exist(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [COMMAND, "demo", "--once", "--concurrency", "1,16", "--out", out],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode in {0, 3}, done.stderr  # 3: a busy machine held the generator up
    assert "tok/J" in done.stdout + done.stderr
    assert "simulated" in done.stderr
    for name in ("run.json", "curve.svg", "curve.png", "report.html"):
        assert f"written: {out / name}" in done.stderr
        assert (out / name).stat().st_size > 0
    one, sixteen = json.loads((out / "run.json").read_text())["points"]
    assert (one["concurrency"], sixteen["concurrency"]) == (1, 16)
    assert one["failed"] == sixteen["failed"] == 0
    assert sixteen["tokens_per_joule"] > 3 * one["tokens_per_joule"]
    assert sixteen["joules_per_request"] < one["joules_per_request"]


def test_a_fleet_of_two_models_is_alive_within_seconds(tmp_path: Path) -> None:
    command = [str(COMMAND), "demo", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        said = iter(demo.stderr.readline, "")
        admin = next(found[1] for line in said if (found := re.search(r"dashboard +(http\S+)/", line)))
        deadline = monotonic() + PATIENCE_SECONDS  # 10 s on an idle machine
        models: dict[str, Any] = {}
        while len(models) < 2 and monotonic() < deadline:
            sleep(0.25)
            with urllib.request.urlopen(
                f"{admin}/energy/summary?by=model", timeout=PATIENCE_SECONDS
            ) as answer:
                models = {group["group"]: group for group in json.load(answer)}
        with urllib.request.urlopen(f"{admin}/energy/devices", timeout=PATIENCE_SECONDS) as answer:
            devices = json.load(answer)["devices"]
        demo.send_signal(signal.SIGTERM)
        demo.stderr.read()
        assert demo.wait(PATIENCE_SECONDS) == 0
    assert set(models) == {"llama-3.1-8b", "pixart-sigma"}
    assert ["simulated" in device["source"] for device in devices] == [True, True]
