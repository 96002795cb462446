"""``--source nvml``: this machine's GPUs without a proxy. The only file here that knows NVML.

A thread reads each energy counter every 10 ms. Device energy is all this can give: whose joules they were,
and parts, need the proxy. Power limits are set and given back here, too.
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

_PERIOD_S = 0.01
_EDGE_WAIT_S = 2.0
_LOOK_S = 0.02


class LocalDeviceError(Exception):
    """Local devices cannot be measured or set; the text says what would help."""


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
        """Open and start to sample."""
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
        """Stop sampling."""
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
        """Seconds to sleep, again and again, until every counter has moved past ``end_ns`` or never will."""
        deadline = time.monotonic() + _EDGE_WAIT_S
        while time.monotonic() < deadline and not all(c.covers(end_ns) or c.gap for c in self.counters):
            yield _LOOK_S

    def between(self, start_ns: int, end_ns: int) -> EnergyTotals | str:
        """Energy over a window of our monotonic clock, or why it is not known."""
        return between(self.counters, start_ns, end_ns, self.source)


@contextlib.contextmanager
def power_limits(asked: Sequence[float]) -> Iterator["PowerLimits"]:
    """Limits that are given back at the end, whatever happens in between; none is set that one may not."""
    limits = PowerLimits()
    limits.check(asked)
    try:
        yield limits
    finally:
        limits.restore()


@dataclass(slots=True)
class PowerLimits:
    """Sets the power limit of all local GPUs."""

    _before: dict[int, int] = field(default_factory=dict)

    def check(self, asked: Sequence[float]) -> None:
        """Whether each limit may be set, before anything changes; raises :class:`LocalDeviceError`."""
        for index, handle in self._each():
            try:
                low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
                # The limit that it has, once more: the driver says whether we may, and nothing changes.
                now = pynvml.nvmlDeviceGetPowerManagementLimit(handle)
                pynvml.nvmlDeviceSetPowerManagementLimit(handle, now)
            except pynvml.NVMLError as error:
                raise LocalDeviceError(
                    f"--power-limits: gpu{index}: {error}; setting a limit needs root, nothing was changed"
                ) from error
            for watts in asked:
                if not low <= watts * MW_PER_WATT <= high:
                    takes = f"{low / MW_PER_WATT:g} to {high / MW_PER_WATT:g} W"
                    raise LocalDeviceError(f"--power-limits {watts:g}: gpu{index} takes {takes}")

    def set(self, watts: float) -> None:
        """Set; raises :class:`LocalDeviceError` where the driver refuses."""
        for index, handle in self._each():
            try:
                before = int(pynvml.nvmlDeviceGetPowerManagementLimit(handle))
                # Remembered first: a signal may come between the two calls.
                self._before.setdefault(index, before)
                pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * MW_PER_WATT))
            except pynvml.NVMLError as error:
                raise LocalDeviceError(f"--power-limits {watts:g}: gpu{index}: {error}") from error

    def restore(self) -> None:
        """Give back what was set; all devices are tried before the first failure is raised."""
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
