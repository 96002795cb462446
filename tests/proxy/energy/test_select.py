from pathlib import Path

import pytest

from proxy.config import ConfigError, MeterConfig
from proxy.energy.select import choose
from proxy.simulator.standin import SimulatedDevice, Standin


def test_none_says_so() -> None:
    choice = choose(MeterConfig(source="none"))
    assert choice.source is None
    assert "unknown" in choice.lines[0]


def test_simulated_by_name(tmp_path: Path) -> None:
    with Standin(tmp_path / "s", [SimulatedDevice()] * 2, 0):
        choice = choose(MeterConfig(source=f"simulated:{tmp_path / 's'}"))
        assert choice.source is not None
        assert choice.source.name == "simulated"
        assert [f.device.id for f in choice.found] == ["gpu0", "gpu1"]
        assert "simulated, not measured" in choice.lines[0]
        choice.source.close()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("gpu", "'gpu' is not one of auto, nvml"),
        ("simulated:/absent", "cannot read /absent"),
        ("replay:/absent", "cannot read /absent"),
    ],
)
def test_a_source_by_name_that_cannot_be_opened_is_an_error(source: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        choose(MeterConfig(source=source))
