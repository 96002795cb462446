"""The contract between an energy source and the sampler that drives it.

Optional abilities are protocols of their own (``PartialSource``, ``EdgeSource``, ``ProcessSource``): the
sampler and the meter check for them with ``isinstance``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from proxy.core.events import Device, Sample
from proxy.units import NS_PER_MS

STALL_NS: Final = 500 * NS_PER_MS  # working counters advance every 20 to 100 ms


class SensorError(Exception):
    """A source cannot be used, or a reading failed. The message states the attempt and the remedy."""


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
    """One device that a source reads, for the log at start and ``jouleproxy devices``.

    Attributes:
        device: Its description, as it is written to the header of a timeline.
        reading: Kind of the reading: "energy counter", "power (instant)", "power (1 s average)", ...
        update_period_s: Time between two updates of the reading, seconds, if it is known.
        call_latency_s: Duration of a call, seconds, if it is known.
        notes: Remarks for the operator, one line each.
    """

    device: Device
    reading: str
    update_period_s: float | None
    call_latency_s: float | None
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A way to read devices. After ``open`` it is used from one thread only, that of its sampler.

    Attributes:
        name: Source name in records: ``nvml``, ``zeus``, ``agent:nvml``, ... Final after ``open``.
        interval_s: Shortest useful time between two readings, seconds; None: as the sampler is configured.
    """

    name: str
    interval_s: float | None

    def open(self) -> list[Found]:
        """Find the devices and prepare reading; raises :class:`SensorError` with the remedy."""

    def read(self) -> list[Sample]:
        """Return the new readings of all devices; a device that fails is left out.

        A stamp is the time at which the value was true, in nanoseconds of this host's monotonic clock; the
        stamps of a device never decrease. Raises :class:`SensorError` if no device can be read.
        """

    def close(self) -> None:
        """Release the library or connection; never raises."""


@runtime_checkable
class PartialSource(Source, Protocol):
    """A source that measures the devices it can, and reports those it cannot."""

    def left_out(self) -> tuple[str, ...]:
        """Return one line for each device that could not be opened, with the reason."""


@runtime_checkable
class EdgeSource(Source, Protocol):
    """A source of cumulative counters that can be polled fast enough to locate their updates."""

    def counters(self) -> tuple[str, ...]:
        """Return the ids of the devices that are read by a counter."""

    def peek(self, device: str) -> Sample | None:
        """Read one counter; cheap enough to be repeated every millisecond. None if it cannot be read now."""


class StallDetector:
    """Detects counters that do not advance, so that power is read in addition."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[float, int]] = {}  # device -> (value, time of the first reading with it)

    def is_stalled(self, device: str, value: float, t_ns: int) -> bool:
        """Add a reading; return whether the counter has had the same value for ``STALL_NS`` or longer."""
        known = self._moved.get(device)
        if known is None or known[0] != value:
            self._moved[device] = (value, t_ns)
            return False
        return t_ns - known[1] >= STALL_NS


@runtime_checkable
class ProcessSource(Source, Protocol):
    """A source whose driver lists the processes on a device. Its method can be called from any thread."""

    def processes(self) -> dict[str, dict[int, float | None]]:
        """Return SM utilisation in percent by device id and process id; None if it is not known."""
