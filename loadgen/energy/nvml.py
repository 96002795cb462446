"""``--source nvml``: energy and power limits of local NVIDIA GPUs, without a proxy.

A thread reads each energy counter every 10 ms. The result is device energy only: attribution to requests and
parts needs the proxy. This is the only module of the load generator that imports NVML.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pynvml

from loadgen.energy.counters import Counter, between
from loadgen.results.records import EnergyTotals
from proxy.units import MW_PER_WATT

_PERIOD_S = 0.01  # between readings of a counter
_EDGE_WAIT_S = 2.0  # longest wait for a counter to change after a window
_POLL_S = 0.02


class LocalDeviceError(Exception):
    """Local devices cannot be measured or configured; the message contains the remedy."""


@dataclass(slots=True)
class LocalDevices:
    """All local GPUs, sampled from ``__enter__`` to ``__exit__``; raises :class:`LocalDeviceError`."""

    source: str = "nvml"
    names: list[str] = field(default_factory=list)
    counters: list[Counter] = field(default_factory=list)
    _handles: list[Any] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Initialise NVML and start sampling."""
        try:
            pynvml.nvmlInit()
            if "simulated" in str(pynvml.nvmlSystemGetDriverVersion()):
                self.source = "nvml-simulated"
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                self._handles.append(handle)
                self.names.append(str(pynvml.nvmlDeviceGetName(handle)))
                self.counters.append(Counter(f"gpu{index}"))
        except pynvml.NVMLError as error:
            raise LocalDeviceError(
                f"--source nvml: {error}; it needs an NVIDIA driver and a GPU with an energy counter"
                " (Volta or newer); a jouleproxy measures more kinds of device"
            ) from error
        if not self._handles:
            raise LocalDeviceError("--source nvml: this machine has no NVIDIA GPU")
        self._thread = threading.Thread(target=self._sample, name="nvml", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop sampling and shut NVML down."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            for counter, handle in zip(self.counters, self._handles, strict=True):
                try:
                    value = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                except pynvml.NVMLError as error:
                    counter.gap = f"{counter.name}: {error}"
                    continue
                counter.read(time.monotonic_ns(), int(value))

    def waiting(self, end_ns: int) -> Iterator[float]:
        """Yield seconds to sleep until every counter has an edge after ``end_ns``, or the wait times out."""
        deadline = time.monotonic() + _EDGE_WAIT_S
        while time.monotonic() < deadline and not all(c.covers(end_ns) or c.gap for c in self.counters):
            yield _POLL_S

    def between(self, start_ns: int, end_ns: int) -> EnergyTotals | str:
        """Return the energy over a window of the local monotonic clock, or why it is unknown."""
        return between(self.counters, start_ns, end_ns, self.source)


@contextlib.contextmanager
def power_limits(limits_watts: Sequence[float]) -> Iterator["PowerLimits"]:
    """Check the limits, and restore the original ones at the end, also after an error."""
    limits = PowerLimits()
    limits.check(limits_watts)
    try:
        yield limits
    finally:
        limits.restore()


@dataclass(slots=True)
class PowerLimits:
    """Sets and restores the power limit of all local GPUs."""

    _before: dict[int, int] = field(default_factory=dict)

    def check(self, limits_watts: Sequence[float]) -> None:
        """Check permission and range of each limit before any is changed.

        Raises :class:`LocalDeviceError`.
        """
        for index, handle in self._each():
            try:
                low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
                # Set the current limit again: checks the permission without a change.
                now = pynvml.nvmlDeviceGetPowerManagementLimit(handle)
                pynvml.nvmlDeviceSetPowerManagementLimit(handle, now)
            except pynvml.NVMLError as error:
                raise LocalDeviceError(
                    f"--power-limits: gpu{index}: {error}; setting a limit needs root, nothing was changed"
                ) from error
            for watts in limits_watts:
                if not low <= watts * MW_PER_WATT <= high:
                    valid = f"{low / MW_PER_WATT:g} to {high / MW_PER_WATT:g} W"
                    raise LocalDeviceError(f"--power-limits {watts:g}: gpu{index} supports {valid}")

    def set(self, watts: float) -> None:
        """Set the limit of all GPUs; raises :class:`LocalDeviceError` if the driver refuses."""
        for index, handle in self._each():
            try:
                before = int(pynvml.nvmlDeviceGetPowerManagementLimit(handle))
                # Stored first: a signal may arrive between the two calls.
                self._before.setdefault(index, before)
                pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * MW_PER_WATT))
            except pynvml.NVMLError as error:
                raise LocalDeviceError(f"--power-limits {watts:g}: gpu{index}: {error}") from error

    def restore(self) -> None:
        """Restore the original limits; all devices are tried before a failure is raised."""
        failed: list[str] = []
        for index, handle in self._each():
            if index not in self._before:
                continue
            try:
                pynvml.nvmlDeviceSetPowerManagementLimit(handle, self._before[index])
            except pynvml.NVMLError as error:
                failed.append(f"gpu{index} to {self._before[index] / MW_PER_WATT:g} W: {error}")
        self._before.clear()
        if failed:
            raise LocalDeviceError("power limits NOT restored: " + "; ".join(failed))

    @staticmethod
    def _each() -> Sequence[tuple[int, Any]]:
        count = pynvml.nvmlDeviceGetCount()
        return [(index, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
