from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.events import Sample
from proxy.energy.sampling.sampler import Sampler
from proxy.energy.source import Found, SensorError
from proxy.energy.sources.simulated import SimulatedSource
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS, NS_PER_SECOND
from tests.fakes.ticking import Ticking


class Scripted:
    """A power-only source whose ``stall``-th reading takes long, and whose ``broken``-th fails."""

    name = "scripted"
    interval_s: float | None = None

    def __init__(self, clock: Ticking, stall: int = -1, broken: int = -1) -> None:
        self.clock, self.stall, self.broken, self.reads = clock, stall, broken, 0
        self.error: Exception = SensorError("broken")
        self.closed = False

    def open(self) -> list[Found]:
        return []

    def read(self) -> list[Sample]:
        self.reads += 1
        if self.reads == self.stall:
            self.clock.now_ns += 210 * NS_PER_MS
        if self.reads == self.broken:
            raise self.error
        return [Sample(self.clock(), "gpu0", power_mw=1.0)]

    def close(self) -> None:
        self.closed = True


def _run(
    stall: int = -1, broken: int = -1, error: Exception | None = None
) -> tuple[Sampler, list[int], Scripted]:
    clock = Ticking(3 * NS_PER_SECOND)
    source = Scripted(clock, stall, broken)
    source.error = error or source.error
    stamps: list[int] = []
    sampler = Sampler(source, lambda s: stamps.append(s[0].t_ns), 20.0, clock=clock, wait=clock.wait)
    sampler.run()
    return sampler, stamps, source


def test_deadlines_do_not_drift() -> None:
    sampler, stamps, source = _run()
    late = [(t - stamps[1]) % (50 * NS_PER_MS) for t in stamps[1:]]
    assert max(late) < NS_PER_MS
    assert sampler.stats.ticks == 39
    assert sampler.stats.skipped == 0
    assert source.closed


def test_a_slow_call_skips_ticks_and_the_rest_stay_in_place() -> None:
    sampler, stamps, _ = _run(stall=10)
    assert sampler.stats.skipped in {3, 4}
    assert (stamps[-1] - stamps[1]) % (50 * NS_PER_MS) < NS_PER_MS
    assert sampler.stats.latency_max_s > 0.2


@pytest.mark.parametrize("error", [SensorError("broken"), TypeError("unforeseen")])
def test_a_failing_reading_is_counted_and_told_and_the_thread_goes_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sampler, stamps, _ = _run(broken=5, error=error)
    assert sampler.stats.failures == 1
    assert len(stamps) == 39
    assert [str(error) in record.message for record in caplog.records] == [True, False]
    assert "can be read again" in caplog.records[-1].message


Profile = Callable[[int], float]


def _constant(_t_ns: int) -> float:
    return 250.0


def _step(t_ns: int) -> float:
    return 100.0 if t_ns < 3 * NS_PER_SECOND else 500.0


def _square_52_ms(t_ns: int) -> float:
    return 500.0 if t_ns // (26 * NS_PER_MS) % 2 else 100.0


def _spikes(t_ns: int) -> float:
    return 690.0 if t_ns // (2 * NS_PER_MS) % 100 == 0 else 80.0


@pytest.mark.parametrize("update_ms", [20, 50, 100])
@pytest.mark.parametrize("profile", [_constant, _step, _square_52_ms, _spikes])
def test_stamps_are_the_counters_own_edges(tmp_path: Path, profile: Profile, update_ms: int) -> None:
    clock = Ticking(6 * NS_PER_SECOND)
    device = SimulatedDevice(idle_watts=profile(0), update_ns=update_ms * NS_PER_MS, phase_ns=7 * NS_PER_MS)
    samples: list[Sample] = []
    with FakeNvml(tmp_path / "s", [device], 0) as fake_nvml:
        for t_ns in range(NS_PER_MS, 7 * NS_PER_SECOND, NS_PER_MS):
            fake_nvml.append(0, t_ns, profile(t_ns))
        source = SimulatedSource(tmp_path / "s", clock)
        source.open()
        sampler = Sampler(source, samples.extend, 20.0, clock=clock, wait=clock.wait)
        sampler.run()
        assert sampler.stats.update_period_s == pytest.approx(update_ms / 1000, rel=0.01)
        settled = samples[3:]
        for sample in settled:
            truth_mj = fake_nvml.truth_joules(0, sample.t_ns) * 1000
            assert sample.energy_mj is not None
            assert abs(truth_mj - sample.energy_mj) <= 690 + 1  # one ms of the highest power
    assert len(settled) > 40


def test_each_of_eight_counters_has_its_own_edges(tmp_path: Path) -> None:
    clock = Ticking(6 * NS_PER_SECOND)
    phases_ms = (0, 3, 5, 8, 11, 13, 16, 19)
    devices = [SimulatedDevice(phase_ns=phase * NS_PER_MS) for phase in phases_ms]
    samples: list[Sample] = []
    with FakeNvml(tmp_path / "s", devices, 0) as fake_nvml:
        for t_ns in range(NS_PER_MS, 7 * NS_PER_SECOND, NS_PER_MS):
            for device in range(8):
                fake_nvml.append(device, t_ns, _square_52_ms(t_ns + device * NS_PER_MS))
        source = SimulatedSource(tmp_path / "s", clock)
        source.open()
        sampler = Sampler(source, samples.extend, 20.0, clock=clock, wait=clock.wait)
        sampler.run()
        assert len(sampler.stats.periods_s) == 8
        at_edge = 0
        for sample in samples[8 * 45 :]:  # once each was looked at
            truth_mj = fake_nvml.truth_joules(int(sample.device[-1]), sample.t_ns) * 1000
            assert sample.energy_mj is not None
            assert abs(truth_mj - sample.energy_mj) <= 500 * 20  # one update, at worst
            at_edge += abs(truth_mj - sample.energy_mj) <= 500 + 1
        assert at_edge > 0.9 * (len(samples) - 8 * 45) > 100


def test_after_a_driver_reload_the_new_edges_are_found(tmp_path: Path) -> None:
    clock = Ticking(14 * NS_PER_SECOND)
    samples: list[Sample] = []
    with FakeNvml(tmp_path / "s", [SimulatedDevice(idle_watts=500)], 0) as fake_nvml:

        def take(new: list[Sample]) -> None:
            samples.extend(new)
            if len(samples) == 50:
                fake_nvml.configure(0, phase_ns=9 * NS_PER_MS, update_ns=33 * NS_PER_MS)

        source = SimulatedSource(tmp_path / "s", clock)
        source.open()
        Sampler(source, take, 20.0, clock=clock, wait=clock.wait).run()
        for sample in samples[-20:]:
            assert sample.energy_mj is not None
            assert abs(fake_nvml.truth_joules(0, sample.t_ns) * 1000 - sample.energy_mj) <= 500 + 1
