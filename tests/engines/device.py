"""The device whose joules are measured: of constant, known power, simulated below the NVML code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from proxy.clock import now_ns
from proxy.simulator import standin

WATTS: Final = 250.0


@dataclass(frozen=True, slots=True)
class Device:
    """What a process needs in its environment to find the device, and the truth about it.

    ``known_watts`` is None where no device can be simulated: requests are then served without joules.
    """

    env: Mapping[str, str]
    known_watts: float | None
    source: str | None

    @property
    def watts(self) -> float:
        """Its power; skips the test that asks where there is none."""
        if self.known_watts is None:
            pytest.skip("no simulated NVML device: it needs a C compiler")
        return self.known_watts


@contextmanager
def constant_power(folder: Path) -> Iterator[Device]:
    """The device for the length of the block; its library and timeline lie in ``folder``."""
    try:
        library = standin.build(folder)
    except standin.StandinError:
        yield Device({"JOULEPROXY_SOURCE": "none"}, known_watts=None, source=None)
        return
    gpu = standin.SimulatedDevice(idle_watts=WATTS)
    with standin.Standin(folder / "power", [gpu], now_ns()) as made:
        env = {**standin.environment(library, made.path), "JOULEPROXY_SOURCE": "nvml"}
        yield Device(env, known_watts=WATTS, source="nvml-simulated")
