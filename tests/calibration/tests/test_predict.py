import subprocess
import sys
from pathlib import Path

from proxy.simulator.profiles.profile import load


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.calibration.predict", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_model_of_no_table_gets_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    words = ("--model", "New-30B-A3B", "--parameters", "30e9", "--active", "3e9", "--gpu", "B200")
    done = run(*words, "--out", str(path))
    assert done.returncode == 0, done.stderr
    profile = load(str(path))
    assert profile.experts is not None
    assert "predicted" in profile.source
    assert run(*words).stdout == path.read_text()


def test_what_is_missing_is_said() -> None:
    done = run("--model", "x")
    assert (done.returncode, "--parameters" in done.stderr) == (2, True)
