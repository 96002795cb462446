"""The device whose joules are measured: of constant, known power, simulated below the NVML code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


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
            pytest.skip("no simulated NVML device can be made here")
        return self.known_watts


@contextmanager
def constant_power(folder: Path) -> Iterator[Device]:
    """The device for the length of the block; its library and timeline lie in ``folder``."""
    assert folder.is_dir()
    yield Device({"JOULEPROXY_SOURCE": "none"}, known_watts=None, source=None)
