from pathlib import Path

import pytest

from tests.calibration.published import TableError, read
from tests.calibration.tests.synthetic import SETTING, points, table


def test_a_table_is_read_by_setting_in_order_of_batch(tmp_path: Path) -> None:
    ((setting, found),) = read(table(tmp_path / "t.csv")).items()
    assert setting == SETTING
    assert [p.batch for p in found] == [p.batch for p in points()]
    assert found[0].seconds_per_step == pytest.approx(points()[0].seconds_per_step)
    assert found[0].median_itl_seconds == pytest.approx(points()[0].median_itl_seconds)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    path.write_text(path.read_text().replace(",256,", ",many,"))
    with pytest.raises(TableError, match=r"t\.csv: line 2: ValueError"):
        read(path)
    with pytest.raises(TableError, match="No such file"):
        read(tmp_path / "none.csv")
    path.write_text("task\nx\n")
    with pytest.raises(TableError, match="line 2: KeyError 'model_id'"):
        read(path)
