import re

import pytest

from tests.beside import beside
from tests.calibration import headlines
from tests.calibration.published import read
from tests.calibration.steady_state import Steady
from tests.calibration.tests.synthetic import SETTING, points

FOLDER = beside("JOULEPROXY_MLENERGY", "data/mlenergy")


def as_published(factor: float) -> headlines.Sweeps:
    """Simulated points that are the published ones, but for the joules of batch 8."""
    pairs = {}
    for p in points():
        joules = p.joules_per_token * (factor if p.batch == 8 else 1.0)
        pairs[p.batch] = (p, Steady(joules, p.tokens_per_second, p.median_itl_seconds, p.watts, 0))
    return {SETTING: pairs}


def test_a_row_holds_both_numbers_and_their_ratio() -> None:
    (row,) = headlines.batch_rows(as_published(2.0))
    assert row.ours == pytest.approx(2 * row.published)
    assert row.line().endswith("| 2.00 |")
    assert headlines.gpu_rows(as_published(1.0)) == []


def test_settings_without_a_profile_are_left_out() -> None:
    assert headlines.sweeps({SETTING: points()}) == {}


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no published tables: {FOLDER} (JOULEPROXY_MLENERGY)")
def test_the_findings_are_found_again() -> None:
    groups = read(FOLDER / "v3_llm.csv")
    chosen = {
        s: p for s, p in groups.items() if "Llama-3.1-8B" in s.model.name or "Qwen3-14B" in s.model.name
    }
    found = headlines.sweeps(chosen)
    rows = [*headlines.batch_rows(found), *headlines.reasoning_rows(found)]
    rows += headlines.diffusion_rows(FOLDER / "v3_diffusion.csv")
    assert len(rows) == 7
    assert all(0.6 < row.ours / row.published < 1.6 for row in rows)
    peak = next(row for row in rows if row.unit == "streams")
    assert (peak.ours, peak.published) == (512, 512)
    (winners,) = headlines.winner_rows(found)
    agree, count = re.findall(r"(\d+) of (\d+) agree", winners)[0]
    assert int(agree) >= 0.9 * int(count) > 0
