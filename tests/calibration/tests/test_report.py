from pathlib import Path

import numpy as np
import pytest

from tests.beside import beside
from tests.calibration import plots, report
from tests.calibration.published import TableError, read
from tests.calibration.tests.synthetic import table

TABLE = beside("JOULEPROXY_MLENERGY", "data/mlenergy") / "v3_llm.csv"


def test_a_page_keeps_what_is_around_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "simulator.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(TableError, match="marks"):
        report.put(page, "new")


def test_models_of_no_profile_are_predicted(tmp_path: Path) -> None:
    said: list[str] = []
    (outcome,) = report.outcomes(read(table(tmp_path / "t.csv")), said.append)
    assert outcome.fitted is None
    assert (outcome.predicted.medians < 0.5).all()
    assert said[0].startswith("h100-tiny-8b: no profile; predicted ")
    text = report.table([outcome])
    assert "| h100-tiny-8b | 6 | - | - | - | - | - |" in text
    assert "settings meet all four" not in text
    (path,) = plots.draw([outcome], tmp_path)
    assert path.stat().st_size > 5_000


@pytest.mark.skipif(not TABLE.exists(), reason=f"no published table: {TABLE} (JOULEPROXY_MLENERGY)")
def test_the_default_profile_is_true_to_the_published_sweep(tmp_path: Path) -> None:
    chosen = {
        setting: points
        for setting, points in read(TABLE).items()
        if setting.model.name.startswith("Llama-3.1-8B")
    }
    found = report.outcomes(chosen | _others(), lambda _: None)
    h100 = next(outcome for outcome in found if outcome.setting.gpu == "H100")
    assert h100.met
    assert h100.fitted is not None
    per_joule = [1 / each.joules_per_token for each in h100.fitted.ours]
    batches = [point.batch for point in h100.points]
    assert batches[int(np.argmax(per_joule))] == 512, "tokens/J peak at 512 of 768, as published"
    assert "1 of" not in report.table(found).splitlines()[0]
    (path, *_) = plots.draw(found, tmp_path)
    assert path.stat().st_size > 5_000


def _others() -> dict:  # type: ignore[type-arg]
    groups = read(TABLE)
    return {setting: points for setting, points in groups.items() if "70B" in setting.model.name}
