"""The device whose joules are measured: of constant, known power, simulated below the NVML code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu import fake_nvml

WATTS: Final = 250.0


@dataclass(frozen=True, slots=True)
class Device:
    """The environment by which a process finds the device, and the device's true power.

    ``known_watts`` is None where no device can be simulated: requests are then served without joules.
    """

    env: Mapping[str, str]
    known_watts: float | None
    source: str | None

    @property
    def watts(self) -> float:
        """Return its power; skip the test if it is not known."""
        if self.known_watts is None:
            pytest.skip("no simulated NVML device: it needs a C compiler")
        return self.known_watts


@contextmanager
def constant_power(folder: Path) -> Iterator[Device]:
    """Provide the device within the block; its library and timeline are in ``folder``."""
    try:
        library = fake_nvml.build(folder)
    except fake_nvml.FakeNvmlError:
        yield Device({"JOULEPROXY_SOURCE": "none"}, known_watts=None, source=None)
        return
    gpu = fake_nvml.SimulatedDevice(idle_watts=WATTS)
    with fake_nvml.FakeNvml(folder / "power", [gpu], now_ns()) as made:
        env = {**fake_nvml.environment(library, made.path), "JOULEPROXY_SOURCE": "nvml"}
        yield Device(env, known_watts=WATTS, source="nvml-simulated")
