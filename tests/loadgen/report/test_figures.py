"""Figures are optional: without matplotlib everything else is written, with instructions to get them."""

import sys
from pathlib import Path

import pytest

from loadgen.cli import main
from loadgen.report.figures import MATPLOTLIB_HINT, draw_figures
from loadgen.results.records import Run
from loadgen.results.run_directory import keep
from tests.loadgen.samples import point, record

RUN = Run(
    run_id="r", spec={"mode": "concurrency"}, seed=0, versions={}, verdict="pass", best=0, points=[point(1)]
)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("loadgen.report.plot", "loadgen.report.charts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_all_are_drawn() -> None:
    drawn = draw_figures(RUN, [record(0)])
    assert drawn is not None
    assert (b"<svg" in drawn.svg, drawn.png[:4]) == (True, b"\x89PNG")


@pytest.mark.usefixtures("no_matplotlib")
def test_a_report_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, RUN, [record(0)])
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert MATPLOTLIB_HINT in said.err
    assert "curve" not in said.out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["points.csv", "report.html", "requests.jsonl.zst", "run.json"]
    assert "jouleproxy[plot]" in (tmp_path / "report.html").read_text()
