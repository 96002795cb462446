import json
from dataclasses import replace
from pathlib import Path

from proxy.gpu import parts, report
from proxy.gpu.curve import Curve, Level
from tests.proxy.gpu.modelled import Counting, ModelledDevice

SCALE = replace(parts.TINY, sets=parts.TINY.sets[:2])


def test_the_page_of_a_simulated_run_states_so_in_every_heading(tmp_path: Path) -> None:
    """Parts c and d need no NVML; a needs one and fails, which leaves the others their results."""
    found = report.Report(True, "none", {})
    parts.run(["a", "c", "d"], found, ModelledDevice(), Counting, SCALE, tmp_path)
    report.write(found, tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("#") and line != "## Failed"]
    assert len(headings) >= 4
    assert all(heading.endswith("(SIMULATED)") for heading in headings)
    assert "- a: " in page
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["simulated"] is True
    assert written["failed"].keys() == {"a"}
    assert [row["name"] for row in written["truth"]] == ["one, alone", "two"]
    assert written["forms"][0]["overlap"] is None


def test_a_real_run_is_not_marked() -> None:
    found = report.Report(False, "8b", {"torch": "2.9"})
    found.curves = [Curve("direct", "nvml", [Level(4, 10, 0, 512.0, 300.0, None, True)])]
    page = report.page(found)
    assert "SIMULATED" not in page
    assert "| direct | 4 | 512 | 300 | - | yes | 0 |" in page
