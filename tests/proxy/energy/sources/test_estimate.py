from pathlib import Path

import pytest

from proxy.core.events import Sample
from proxy.energy.source import SensorError
from proxy.energy.sources.estimate import EstimateSource
from proxy.schema import not_measured


def _stat(path: Path, user: int, idle: int) -> None:
    path.write_text(f"cpu  {user} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4\n")


def test_a_straight_line_between_idle_and_full(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    _stat(stat, 100, 1000)
    source = EstimateSource("cpu=40..240", stat, clock=lambda: 7)
    (found,) = source.open()
    assert "ESTIMATE" in found.notes[0]
    assert source.read() == []  # nothing has passed yet
    _stat(stat, 125, 1075)
    assert source.read() == [Sample(7, "cpu0", power_mw=90_000.0, source="estimate")]
    assert source.read()[0].power_mw == 90_000.0  # no tick since: still that
    _stat(stat, 225, 1075)
    assert source.read()[0].power_mw == 240_000.0
    source.close()


def test_idle_is_zero_unless_stated(tmp_path: Path) -> None:
    _stat(tmp_path / "stat", 0, 0)
    source = EstimateSource("cpu=200", tmp_path / "stat")
    source.open()
    _stat(tmp_path / "stat", 0, 100)
    assert source.read()[0].power_mw == 0.0


@pytest.mark.parametrize(
    "argument", ["", "gpu=300", "cpu=300..20", "cpu=", "cpu=x..y", "cpu=-1..5", "cpu=nan", "cpu=1e300"]
)
def test_says_what_would_be_right(argument: str) -> None:
    with pytest.raises(SensorError, match=r"should be cpu=\[IDLE\.\.\]FULL"):
        EstimateSource(argument)


def test_a_host_that_does_not_tell_its_utilisation(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="cannot read utilisation"):
        EstimateSource("cpu=200", tmp_path / "none").open()


def test_records_and_reports_can_tell_it_from_a_measurement() -> None:
    assert not_measured("nvml+estimate") == "estimate"
    assert not_measured("agent:nvml-simulated") == "simulated"
    assert not_measured("nvml") is None
    assert not_measured(None) is None
