"""``jouleproxy demo --once`` as installed: a table, a curve that rises, files where it says."""

import json
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("jouleproxy")


def test_tokens_per_joule_rise_with_concurrency_and_the_files_are_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [COMMAND, "demo", "--once", "--concurrency", "1,16", "--out", out],
        capture_output=True,
        text=True,
        timeout=120,
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
