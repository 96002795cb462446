import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.simulator.profiles.profile import DEFAULT, load, names
from tests.calibration import fit
from tests.calibration.published import TableError
from tests.calibration.tests.synthetic import MIXTURE, SETTING, points, table


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.calibration.fit", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_profiles_of_the_package_survive_being_written(tmp_path: Path) -> None:
    for name in names():
        path = tmp_path / "p.toml"
        path.write_text(fit.toml(load(name)))
        assert load(str(path)) == load(name)


def test_files_are_named_by_gpus_model_and_task() -> None:
    assert fit.file_name(SETTING) == "h100-tiny-8b"
    assert fit.file_name(MIXTURE) == "h100x2-tiny-30b-a3b"


def test_a_table_becomes_a_profile(tmp_path: Path) -> None:
    done = run(str(table(tmp_path / "t.csv")), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    profile = load(str(tmp_path / "h100-tiny-8b.toml"))
    assert "fitted to 6 points" in profile.source
    bad = run(str(tmp_path / "none.csv"), "--out", str(tmp_path))
    assert (bad.returncode, "No such file" in bad.stderr) == (2, True)


def test_own_runs_are_points(tmp_path: Path) -> None:
    made = [
        {
            "concurrency": p.batch,
            "requests": 100,
            "duration_seconds": 100 * p.output_tokens / p.tokens_per_second,
            "output_tokens_per_second": p.tokens_per_second,
            "itl_seconds": {"p50": p.median_itl_seconds},
            "watts": p.watts,
            "joules_per_output_token": p.joules_per_token,
        }
        for p in points()
    ]
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"points": [*made, {**made[0], "watts": None}]}))
    found = fit.from_run(path)
    assert [p.batch for p in found] == [p.batch for p in points()]
    assert found[0].output_tokens == pytest.approx(400)
    words = ("--model", "tiny-8b", "--parameters", "8e9", "--out", str(tmp_path))
    assert run(str(path), *words).returncode == 0
    assert "own run" in load(str(tmp_path / "h100-tiny-8b.toml")).source
    lacking = run(str(path), "--out", str(tmp_path))
    assert (lacking.returncode, "needs --model and --parameters" in lacking.stderr) == (2, True)
    path.write_text(json.dumps({"points": []}))
    with pytest.raises(TableError, match="no point has"):
        fit.from_run(path)


def test_the_default_profile_is_as_published() -> None:
    profile = load(DEFAULT)
    assert profile.joules.static == pytest.approx(3.168, rel=0.1), "e0 of the published J/token = e0/B + e1"
    assert profile.seconds.static == pytest.approx(6.63e-3, rel=0.1), "a of the published ITL = a + b*B"
