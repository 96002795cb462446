from pathlib import Path

import pytest

from proxy.config import ConfigError, MeterConfig
from proxy.energy.choice import choose
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice


def test_none_says_so() -> None:
    choice = choose(MeterConfig(source="none"))
    assert choice.name is None
    assert "unknown" in choice.lines[0]


def test_simulated_by_name(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, 0):
        choice = choose(MeterConfig(source=f"simulated:{tmp_path / 's'}"))
        assert choice.name == "simulated"
        assert [f.device.id for f in choice.found] == ["gpu0", "gpu1"]
        assert "simulated, not measured" in choice.lines[0]
        choice.close()


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


def test_several_sources_at_once(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], 0):
        choice = choose(MeterConfig(source=f"simulated:{tmp_path / 's'},estimate:cpu=100"))
        assert choice.name == "simulated+estimate"
        assert [f.device.id for f in choice.found] == ["gpu0", "cpu0"]
        choice.close()


def test_a_device_in_two_sources_would_count_twice(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], 0):
        twice = f"simulated:{tmp_path / 's'},simulated:{tmp_path / 's'}"
        with pytest.raises(ConfigError, match="gpu0: it would count twice"):
            choose(MeterConfig(source=twice))


def test_host_energy_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("zeus")
    if Path("/sys/class/powercap/intel-rapl").exists():
        pytest.skip("this machine has RAPL")
    with FakeNvml(tmp_path / "s", [SimulatedDevice()], 0):
        config = MeterConfig(source=f"simulated:{tmp_path / 's'}", host_energy="reported")
        with pytest.raises(ConfigError, match=r"rapl: .*powercap"):
            choose(config)
