from pathlib import Path

import pytest

from proxy.core.events import Sample
from proxy.energy.sampling.probe import Probe, probe
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS
from tests.fakes.ticking import Ticking


def test_periods_and_latency_of_each_counter(tmp_path: Path) -> None:
    clock = Ticking()
    devices = [SimulatedDevice(update_ns=ms * NS_PER_MS) for ms in (20, 50)]
    with FakeNvml(tmp_path / "s", devices, 0):
        source = SimulatedSource(tmp_path / "s", clock)
        source.open()
        found = probe(source, source.counters(), clock, clock.wait)
        trackers = [found[f"gpu{i}"].tracker() for i in range(2)]
        source.close()
    assert [t and t.period_ns for t in trackers] == [
        pytest.approx(20 * NS_PER_MS, rel=0.01),
        pytest.approx(50 * NS_PER_MS, rel=0.01),
    ]
    assert found["gpu0"].latency_s is not None


def test_a_counter_that_fails_or_is_slow_has_no_edges() -> None:
    seen = Probe(Sample(0, "gpu0", energy_mj=1))
    for k in range(3):
        seen.add_poll(Sample(k, "gpu0", energy_mj=k), 200 * NS_PER_MS)
    assert not seen.usable
    assert seen.tracker() is None
    assert seen.latency_s == 0.2
    failed = Probe(Sample(0, "gpu0", energy_mj=1))
    for _ in range(3):
        failed.add_poll(None, 1)
    assert not failed.usable
    assert failed.tracker() is None


def test_a_few_slow_calls_may_be_the_schedulers_doing() -> None:
    seen = Probe(Sample(0, "gpu0", energy_mj=0))
    for k in range(1, 400):
        slow = k % 100 == 7
        seen.add_poll(Sample(k * NS_PER_MS, "gpu0", energy_mj=k // 20), 200 * NS_PER_MS if slow else 1000)
    assert seen.usable
    tracker = seen.tracker()
    assert tracker is not None
    assert tracker.period_ns == pytest.approx(20 * NS_PER_MS, rel=0.001)
