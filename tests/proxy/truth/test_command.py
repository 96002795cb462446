"""The command ``jouleproxy truth`` as users start it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.truth.cases import CASES

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a case of eight seconds; a single case is simulated in this process."""
    monkeypatch.setitem(CASES, "short", replace(CASES["medium"], seconds=8.0))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        status = main(["truth", *words])
    except SystemExit as error:
        status = int(str(error.code))
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err


def test_help_is_printed_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["truth", "--help"]) == 0
    assert "--command" in capsys.readouterr().out


def test_list_has_a_line_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["truth", "list"]) == 0
    out, err = capsys.readouterr()
    assert "budget-512" in out
    assert len(out.splitlines()) == int(err.split()[0])


def test_make_attribute_and_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timeline, out = tmp_path / "s.jsonl.zst", tmp_path / "out.jsonl"
    assert main(["truth", "make", "short", "--seed", "3", "--out", str(timeline)]) == 0
    assert main(["attribute", str(timeline), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["truth", "score", str(out), str(tmp_path / "s.truth.jsonl")]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[0] == "s"
    assert float(row[2].rstrip("%")) < 10.0


def test_run_prints_a_table_and_writes_json_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = tmp_path / "a.json", tmp_path / "a.md"
    words = ["--case", "short", "--policy", "all", "--json", str(results), "--page", str(page)]
    assert main(["truth", "run", *words]) == 0
    out = capsys.readouterr().out
    scores = {score["policy"]: score for score in json.loads(results.read_text())["scores"]}
    assert scores["steps"]["median"] < scores["overlap-weights"]["median"]
    assert scores["equal-split"]["inside"] is None
    assert all(f"`{policy}`" in page.read_text() for policy in scores)
    assert all(policy in out for policy in scores)


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk")
def test_a_tool_in_awk_is_scored(tmp_path: Path) -> None:
    results = tmp_path / "a.json"
    command = f"awk -v out={{out}} -f {EXAMPLES / 'output_share.awk'} {{timeline}}"
    assert main(["truth", "run", "--case", "short", "--command", command, "--json", str(results)]) == 0
    (by_tool,) = json.loads(results.read_text())["scores"]
    assert by_tool["missing"] == 0
    assert 0.05 < by_tool["median"] < 1.0


def test_the_page_shows_the_tool_that_is_tested() -> None:
    page = (EXAMPLES.parent / "docs" / "truth.md").read_text()
    assert (EXAMPLES / "output_share.awk").read_text() in page


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('out of tokens')", "exit status 1: out of tokens"),
        ("pass", "wrote no output"),
        (
            "import sys; open(sys.argv[2], 'w').write('{\"request\": \"x\"}')",
            "request 'x' is not in the truth",
        ),
    ],
)
def test_a_tool_that_fails_is_status_1_with_the_reason(
    program: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text(program)
    words = ["--case", "short", "--command", f"{sys.executable} {tool} {{timeline}} {{out}}"]
    assert main(["truth", "run", *words]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give list, make, score or run"),
        (["mkae"], "did you mean make?"),
        (["make", "medim", "--out", "x"], "no case 'medim': did you mean medium?"),
        (["make", "medium"], "--out"),
        (["make", "short", "--out", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        (["score", "/nowhere", "/nowhere"], "/nowhere: No such file or directory"),
        (["run", "--policy", "fair"], "'steps'"),
        (["run", "--command", "tool {out}"], "must contain {timeline}"),
        (["run", "--command", "'"], "No closing quotation"),
        (["run", "--seed", "-1"], "-1: must be 0 or more"),
        (["run", "--page", "/nowhere/x.md"], "/nowhere/x.md: no directory /nowhere"),
        (["run", "--jobs", "0"], "--jobs 0: must be 1 or more"),
        (["run", "--policy", "steps", "--command", "x"], "not allowed with"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in refusal(capsys, *words)
