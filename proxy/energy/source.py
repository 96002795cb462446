"""The contract of an energy source, and what one reading is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from proxy.core.events import Device, Sample
from proxy.units import NS_PER_MS

STANDSTILL_NS: Final = 500 * NS_PER_MS  # counters that work step every 20 to 100 ms


class SensorError(Exception):
    """A source cannot be used, or a reading failed. ``str`` says what was tried and the way out."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The settings that the factory of a source receives.

    Attributes:
        argument: The text after the colon in ``--source KIND:ARGUMENT``; empty if there is none. Its syntax
            is declared in :mod:`proxy.config.sources`.
        devices: The value of ``--devices`` if the source selects its devices itself, else ``auto``.
        host_energy: Energy of CPUs and memory is requested (``--host-energy``).
        agent_token: The token that agents require, or None.
        environ: Environment variables.
    """

    argument: str = ""
    devices: str = "auto"
    host_energy: bool = False
    agent_token: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """One device that a source can read, and how: for start-up lines and ``jouleproxy devices``."""

    device: Device
    reading: str  # "energy counter", "power (instant)", "power (1 s average)", ...
    update_period_s: float | None
    call_latency_s: float | None
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A way to read devices. Used from one thread only: its sampler's."""

    name: str  # goes into records: nvml, zeus, prometheus, agent, replay, simulated, estimate, ...
    interval_s: float | None  # shortest useful time between two readings; None: the sampler's own

    def open(self) -> list[Found]:
        """Find the devices; raises :class:`SensorError`."""

    def read(self) -> list[Sample]:
        """What is new of each device that could be read now; a failing device is left out.

        Stamps are this host's monotonic clock, in order for each device.
        """

    def close(self) -> None:
        """Give the library back; never raises."""


@runtime_checkable
class PartialSource(Source, Protocol):
    """A source that measures what it can, and names the devices that it cannot."""

    def left_out(self) -> tuple[str, ...]:
        """Devices that were not opened, and why: a line each."""


@runtime_checkable
class EdgeSource(Source, Protocol):
    """A source of cumulative counters whose update edges the sampler may look for."""

    def counters(self) -> tuple[str, ...]:
        """Ids of the devices that are read by a counter."""

    def peek(self, device: str) -> Sample | None:
        """A reading of one counter, cheap enough to repeat; None: not now."""


class Standstill:
    """Notices counters that do not move, so that power is read beside them."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[float, int]] = {}

    def lasts(self, device: str, value: float, t_ns: int) -> bool:
        """Whether the counter has shown the same value for half a second at least."""
        known = self._moved.get(device)
        if known is None or known[0] != value:
            self._moved[device] = (value, t_ns)
            return False
        return t_ns - known[1] >= STANDSTILL_NS


@runtime_checkable
class ProcessSource(Source, Protocol):
    """A source whose driver tells which processes compute on a device. Callable from any thread."""

    def processes(self) -> dict[str, dict[int, float | None]]:
        """By device id: pid -> SM utilisation in percent, None where not told."""
