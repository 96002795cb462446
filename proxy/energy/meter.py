"""The contract of an energy source, and what one reading is."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from proxy.core.events import Device, Sample


class SensorError(Exception):
    """A source cannot be used, or a reading failed. ``str`` says what was tried and the way out."""


@dataclass(frozen=True, slots=True)
class Found:
    """One device that a source can read, and how: for start-up lines and ``jouleproxy devices``."""

    device: Device
    reading: str  # "energy counter", "power (instant)", "power (1 s average)", ...
    update_period_s: float | None
    call_latency_s: float | None
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A way to read devices. Used from one thread only: the sampler's."""

    name: str  # goes into records: nvml, zeus, prometheus, replay, simulated, estimate

    def open(self) -> list[Found]:
        """Find the devices; raises :class:`SensorError`."""

    def read(self) -> list[Sample]:
        """One reading of each device that could be read now; a failing device is left out."""

    def close(self) -> None:
        """Give the library back; never raises."""


@runtime_checkable
class EdgeSource(Source, Protocol):
    """A source of cumulative counters whose update edges the sampler may look for."""

    def peek(self) -> Sample | None:
        """A reading of one device, always the same, cheap enough to repeat; None: not now."""
