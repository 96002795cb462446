from pathlib import Path

import pytest

from proxy.core.events import Sample
from proxy.energy.source import SensorError
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS, NS_PER_SECOND

DEVICES = [
    SimulatedDevice(idle_watts=100),
    SimulatedDevice(idle_watts=50, update_ns=100 * NS_PER_MS, gain=1.1),
]


def test_counters_step_at_their_own_updates_and_have_their_gain(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", DEVICES, 0):
        source = SimulatedSource(tmp_path / "s", clock=lambda: NS_PER_SECOND + 50 * NS_PER_MS)
        found = source.open()
        assert [(f.device.id, f.update_period_s) for f in found] == [("gpu0", 0.02), ("gpu1", 0.1)]
        assert all("simulated" in f.notes[0] for f in found)
        assert source.read() == [
            Sample(NS_PER_SECOND + 50 * NS_PER_MS, "gpu0", energy_mj=104_000, source="simulated"),
            Sample(NS_PER_SECOND + 50 * NS_PER_MS, "gpu1", energy_mj=55_000, source="simulated"),
        ]
        assert source.counters() == ("gpu0", "gpu1")
        assert source.peek("gpu1") == source.read()[1]
        source.close()


def test_a_lost_device_is_left_out(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", DEVICES, 0) as fake_nvml:
        source = SimulatedSource(tmp_path / "s", clock=lambda: NS_PER_SECOND)
        source.open()
        fake_nvml.lose(0)
        assert [s.device for s in source.read()] == ["gpu1"]
        assert source.peek("gpu0") is None
        fake_nvml.restore(0)
        assert len(source.read()) == 2
        source.close()


def test_a_reset_shows_zero(tmp_path: Path) -> None:
    now = [NS_PER_SECOND]
    with FakeNvml(tmp_path / "s", DEVICES[:1], 0) as fake_nvml:
        source = SimulatedSource(tmp_path / "s", clock=lambda: now[0])
        source.open()
        fake_nvml.reset(0, NS_PER_SECOND)
        assert source.read()[0].energy_mj == 0
        now[0] += NS_PER_SECOND
        assert source.read()[0].energy_mj == 100_000
        source.close()


def test_a_segment_written_late_takes_nothing_back(tmp_path: Path) -> None:
    now = [NS_PER_SECOND]
    with FakeNvml(tmp_path / "s", DEVICES[:1], 0) as fake_nvml:
        source = SimulatedSource(tmp_path / "s", clock=lambda: now[0])
        source.open()
        assert source.read()[0].energy_mj == 100_000
        fake_nvml.append(0, NS_PER_SECOND // 2, 50.0)
        assert source.read()[0].energy_mj == 100_000
        now[0] += NS_PER_SECOND
        assert source.read()[0].energy_mj == 125_000
        source.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(1000))
    with pytest.raises(SensorError, match="not a simulator's power timeline"):
        SimulatedSource(tmp_path / "f").open()
    with pytest.raises(SensorError, match="cannot read"):
        SimulatedSource(tmp_path / "none").open()


@pytest.mark.parametrize("data", [b"", b"x", b"root:x:0:0:" * 100, bytes(4096)])
def test_a_file_of_something_else_is_refused_and_closed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    source = SimulatedSource(tmp_path / "s")
    with pytest.raises(SensorError, match="simulated: "):
        source.open()
    source.close()


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    with FakeNvml(tmp_path / "s", DEVICES, 0):
        data = (tmp_path / "s").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-100])
    source = SimulatedSource(tmp_path / "cut")
    with pytest.raises(SensorError, match="not a simulator's"):
        source.open()
    source.close()
