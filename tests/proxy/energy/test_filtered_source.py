from pathlib import Path

import pytest

from proxy.config import ConfigError, MeterConfig
from proxy.core.events import Device
from proxy.energy.choice import choose
from proxy.energy.filtered_source import filter_source, ids_named
from proxy.energy.source import EdgeSource
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice

LOCAL = [Device("gpu0", uuid="GPU-aa"), Device("gpu1", uuid="GPU-ab"), Device("gpu10", uuid="GPU-b")]
FAR = [Device("h/gpu0"), Device("h/gpu1")]
EXPORTED = [Device("GPU-aa", uuid="GPU-aa"), Device("GPU-b", uuid="GPU-b")]


@pytest.mark.parametrize(
    ("names", "devices", "ids"),
    [
        ("1", LOCAL, {"gpu1"}),
        ("gpu10, 0", LOCAL, {"gpu0", "gpu10"}),
        ("GPU-ab", LOCAL, {"gpu1"}),
        ("1", FAR, {"h/gpu1"}),
        ("h/gpu0", FAR, {"h/gpu0"}),
        ("1", EXPORTED, {"GPU-b"}),
        ("GPU-a", EXPORTED, {"GPU-aa"}),
    ],
)
def test_devices_are_named_by_id_index_or_uuid(names: str, devices: list[Device], ids: set[str]) -> None:
    assert ids_named(names, devices) == ids


@pytest.mark.parametrize("name", ["7", "GPU-a", "card"])
def test_a_name_of_none_or_several_lists_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' .*: gpu0 \(GPU-aa\), gpu1 \(GPU-ab\), gpu10"):
        ids_named(name, LOCAL)


def test_devices_selects_of_simulated_ones_too(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 3, 0):
        choice = choose(MeterConfig(source=f"simulated:{tmp_path / 's'}", devices="0,2"))
        assert [found.device.id for found in choice.found] == ["gpu0", "gpu2"]
        (opened,) = choice.opened
        assert [sample.device for sample in opened.source.read()] == ["gpu0", "gpu2"]
        assert isinstance(opened.source, EdgeSource)
        assert opened.source.counters() == ("gpu0", "gpu2")
        choice.close()


def test_devices_selects_among_all_sources(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, 0):
        source = f"simulated:{tmp_path / 's'},estimate:cpu=100"
        choice = choose(MeterConfig(source=source, devices="cpu0"))
        assert choice.name == "estimate"
        choice.close()
        with pytest.raises(ConfigError, match="devices: '9'"):
            choose(MeterConfig(source=source, devices="9"))


def test_a_peek_is_the_source_s(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", [SimulatedDevice()] * 2, 0):
        inner = SimulatedSource(tmp_path / "s")
        source = filter_source(inner, frozenset(["gpu1"]))
        assert [found.device.id for found in source.open()] == ["gpu1"]
        assert isinstance(source, EdgeSource)
        sample = source.peek("gpu1")
        assert sample is not None
        assert sample.device == "gpu1"
        source.close()
