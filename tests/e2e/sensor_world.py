"""Devices of exact truth, read by the production NVML code and the sampler on a clock that is set.

``python -m tests.e2e.sensor_world NAME`` runs in a process of its own, as the library path is read when a
process starts; it prints how the devices are read and the samples, as JSON. What is measured does not depend
on how busy this machine is: time passes only when the sampler looks at the clock or waits.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.core.events import Sample
from proxy.energy.sampling.sampler import Sampler
from proxy.energy.sources.nvml import NvmlSource
from proxy.simulator.gpu.fake_nvml import ENVIRONMENT_KEY, LIBRARY, FakeNvml, SimulatedDevice
from proxy.units import NS_PER_MS, NS_PER_SECOND

SECONDS = 6.0
BEGIN_NS = 100 * NS_PER_SECOND
START_NS = BEGIN_NS + round(1.5 * NS_PER_SECOND)  # time to find the counters' edges
END_NS = START_NS + round(SECONDS * NS_PER_SECOND)
_LOOK_NS = 5_000  # what a look at the clock costs
Profile = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A device, the power it draws at a time since the start, and its sensors' failings."""

    profile: Profile
    device: SimulatedDevice = field(default_factory=SimulatedDevice)
    settings: Mapping[str, float] = field(default_factory=dict)


def _square(t_ns: int) -> float:
    return 500.0 if t_ns // (26 * NS_PER_MS) % 2 else 100.0


def _step(t_ns: int) -> float:
    return 100.0 if t_ns < 2 * NS_PER_SECOND else 500.0


def _spikes(t_ns: int) -> float:
    return 690.0 if t_ns // (2 * NS_PER_MS) % 100 == 0 else 80.0


NO_COUNTER = {"error_energy": 3}
ONLY_USAGE = {"error_energy": 3, "error_fields": 3, "error_samples": 3}
SCENARIOS = {
    "constant": Scenario(lambda _: 250.0),
    "step": Scenario(_step, SimulatedDevice(update_ns=100 * NS_PER_MS, phase_ns=41 * NS_PER_MS)),
    "square": Scenario(_square, SimulatedDevice(phase_ns=13 * NS_PER_MS)),
    "spikes": Scenario(_spikes, SimulatedDevice(phase_ns=7 * NS_PER_MS)),
    "averaged": Scenario(_step, SimulatedDevice(), ONLY_USAGE),
    "a quarter seen": Scenario(
        _square, SimulatedDevice(update_ns=100 * NS_PER_MS, instant_ns=25 * NS_PER_MS), NO_COUNTER
    ),
    "reset": Scenario(lambda _: 300.0),
    "lost": Scenario(lambda _: 200.0),
}
INDEX = {name: index for index, name in enumerate(SCENARIOS)}


def play(fake_nvml: FakeNvml, start_ns: int) -> None:
    """Write the power of all devices ahead of time."""
    end_ns = start_ns + round((SECONDS + 1) * NS_PER_SECOND)
    for index, scenario in enumerate(SCENARIOS.values()):
        last = None
        for t_ns in range(start_ns, end_ns, NS_PER_MS):
            watts = scenario.profile(t_ns - start_ns)
            if watts != last:
                fake_nvml.append(index, t_ns, watts)
                last = watts


class Clock:
    """The stand-in's clock; ``events`` are done as their time comes."""

    def __init__(self, end_ns: int, events: Mapping[int, Callable[[], None]]) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.jouleproxy_standin_clock.restype = ctypes.c_int64
        self._library.jouleproxy_standin_set_clock.argtypes = (ctypes.c_int64,)
        self._end_ns = end_ns
        self._events = dict(sorted(events.items()))
        self._set(BEGIN_NS)

    def __call__(self) -> int:
        now = int(self._library.jouleproxy_standin_clock()) + _LOOK_NS
        self._set(now)
        return now

    def wait(self, deadline_ns: int) -> bool:
        """Let time pass; True at the end."""
        now = max(self(), deadline_ns)
        for due in [due for due in self._events if due <= now]:
            self._set(due)
            self._events.pop(due)()
        self._set(now)
        return now >= self._end_ns

    def _set(self, t_ns: int) -> None:
        self._library.jouleproxy_standin_set_clock(t_ns)


class Report(msgspec.Struct):
    """Results of a subprocess: device, reading, gain error, notes; samples; ticks that were skipped."""

    found: list[tuple[str, str, float | None, tuple[str, ...]]]
    samples: list[Sample]
    skipped: int


def scenarios(path: Path) -> FakeNvml:
    """Create the devices of ``SCENARIOS``, with their power written for the entire run."""
    devices = [scenario.device for scenario in SCENARIOS.values()]
    fake_nvml = FakeNvml(path, devices, BEGIN_NS - 2 * NS_PER_SECOND)
    for index, scenario in enumerate(SCENARIOS.values()):
        fake_nvml.configure(index, **scenario.settings)
    play(fake_nvml, START_NS)
    return fake_nvml


def slow(path: Path) -> FakeNvml:
    """One device of 300 W."""
    return FakeNvml(path, [SimulatedDevice(idle_watts=300)], BEGIN_NS - NS_PER_SECOND)


def _run(name: str, path: Path) -> Report:
    if name == "scenarios":
        fake_nvml = scenarios(path)
        lost, reset_ns = INDEX["lost"], START_NS + NS_PER_SECOND
        events = {
            reset_ns: lambda: fake_nvml.reset(INDEX["reset"], reset_ns),
            reset_ns + 1: lambda: fake_nvml.lose(lost),
            reset_ns + NS_PER_SECOND // 2: lambda: fake_nvml.restore(lost),
        }
    else:
        fake_nvml = slow(path)
        events = {START_NS: lambda: fake_nvml.configure(0, call_ns=200 * NS_PER_MS)}
    clock = Clock(END_NS, events)
    source = NvmlSource(clock=clock)
    found = [(f.device.id, f.reading, f.device.gain_error, f.notes) for f in source.open()]
    samples: list[Sample] = []
    sampler = Sampler(source, samples.extend, clock=clock, wait=clock.wait)
    sampler.run()
    fake_nvml.close()
    return Report(found, samples, sampler.stats.skipped)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_run(sys.argv[1], Path(os.environ[ENVIRONMENT_KEY]))))
