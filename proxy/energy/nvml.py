"""NVIDIA GPUs through NVML: the only file that imports pynvml.

A device is read by its cumulative energy counter (Volta and newer), else by power: ``POWER_INSTANT``,
``POWER_AVERAGE`` or ``GetPowerUsage``, in this order. Every poll is emitted, equal values included: the
core integrates, and dropping equal power readings would lose constant stretches. A driver whose version
says "simulated" makes the source ``nvml-simulated``.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.meter import Found, SensorError
from proxy.energy.selection import Selection, pick
from proxy.units import MW_PER_WATT, NS_PER_SECOND, seconds_from_ns

_LOG = logging.getLogger(__name__)
_RETRY_NS: Final = NS_PER_SECOND
_GAIN_ERROR: Final = 0.05  # per board, up to about 5 % (arXiv 2312.02741)
_POWER_AVERAGE: Final = 185
_POWER_INSTANT: Final = 186
_AMPERE: Final = 7

COUNTER: Final = "energy counter"
INSTANT: Final = "power (instant)"
AVERAGE: Final = "power (1 s average)"
USAGE: Final = "power (GetPowerUsage)"

_WAYS_OUT: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no libnvidia-ml.so.1: install the NVIDIA driver, or in a "
    "container run with --gpus all (NVIDIA container toolkit, capability 'utility')",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: modprobe nvidia, or "
    "start the container with --gpus all",
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission to open the NVIDIA device files: add this user "
    "to the group of /dev/nvidia* (video or render)",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and library versions differ: reload the "
    "nvidia module or reboot",
}

_READERS: Final[dict[str, Callable[[Any], float]]] = {}


def _reader(name: str) -> Callable[[Callable[[Any], float]], Callable[[Any], float]]:
    """Register a way of reading, in order of preference."""

    def register(function: Callable[[Any], float]) -> Callable[[Any], float]:
        _READERS[name] = function
        return function

    return register


@_reader(COUNTER)
def _counter_mj(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


@_reader(INSTANT)
def _instant_mw(handle: Any) -> float:
    return _field_mw(handle, _POWER_INSTANT)


@_reader(AVERAGE)
def _average_mw(handle: Any) -> float:
    return _field_mw(handle, _POWER_AVERAGE)


@_reader(USAGE)
def _usage_mw(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(handle))


def _field_mw(handle: Any, number: int) -> float:
    """One power field value; its own return code raises as a call's would."""
    value = pynvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal)


@dataclass(slots=True)
class _Gpu:
    """One device being read. ``retry_ns`` is set while it fails."""

    device: Device
    handle: Any
    reading: str
    notes: tuple[str, ...] = ()
    latency_ns: int = 0
    retry_ns: int | None = None
    failure: str = field(default="")


class NvmlSource:
    """The GPUs of this host. ``selection`` says which (``--devices``, CUDA_VISIBLE_DEVICES)."""

    def __init__(self, selection: Selection | None = None, clock: Callable[[], int] = now_ns) -> None:
        self.name = "nvml"
        self._selection = selection or Selection()
        self._clock = clock
        self._gpus: list[_Gpu] = []

    def open(self) -> list[Found]:
        """Find the devices; raises :class:`SensorError` with the way out."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise SensorError(f"NVML: {_explain(error)}") from error
        try:
            if "simulated" in _text(pynvml.nvmlSystemGetDriverVersion()):
                self.name = "nvml-simulated"
            self._gpus = [self._open_gpu(i) for i in self._chosen()]
        except pynvml.NVMLError as error:
            self.close()
            raise SensorError(f"NVML: {_explain(error)}") from error
        except SensorError:
            self.close()
            raise
        if not self._gpus:
            self.close()
            raise SensorError("NVML: the driver sees no GPU, or CUDA_VISIBLE_DEVICES hides all")
        return [Found(g.device, g.reading, None, seconds_from_ns(g.latency_ns), g.notes) for g in self._gpus]

    def read(self) -> list[Sample]:
        """One reading of each device; a failing one is left out, logged once, tried each second."""
        samples = []
        for gpu in self._gpus:
            if gpu.retry_ns is not None and self._clock() < gpu.retry_ns:
                continue
            sample = self._read_gpu(gpu)
            if sample is not None:
                samples.append(sample)
        return samples

    def peek(self) -> Sample | None:
        """The first device's counter; None when it fails or a device has power readings only."""
        if any(gpu.reading != COUNTER for gpu in self._gpus):
            return None
        first = self._gpus[0]
        return None if first.retry_ns is not None else self._read_gpu(first)

    def failures(self) -> dict[str, str]:
        """Devices that cannot be read now, and why."""
        return {g.device.id: g.failure for g in self._gpus if g.retry_ns is not None}

    def foreign_processes(self, own: frozenset[int]) -> dict[str, tuple[int, ...]]:
        """Compute processes on each device other than ``own``; devices that do not tell are left out."""
        found = {}
        for gpu in self._gpus:
            try:
                running = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
            except pynvml.NVMLError:
                continue
            found[gpu.device.id] = tuple(p.pid for p in running if p.pid not in own)
        return found

    def close(self) -> None:
        """Give NVML back; never raises."""
        self._gpus = []
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            _LOG.debug("NVML shutdown: %s", error)

    def _chosen(self) -> list[int]:
        uuids = [
            _text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i)))
            for i in range(pynvml.nvmlDeviceGetCount())
        ]
        return pick(self._selection, uuids)

    def _open_gpu(self, index: int) -> _Gpu:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        _refuse_mig(handle, index)
        device = Device(
            id=f"gpu{index}",
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            source=self.name,
            gain_error=_GAIN_ERROR,
        )
        reading, latency_ns, notes = self._choose_reading(handle, index)
        return _Gpu(device, handle, reading, (*notes, *_context(handle)), latency_ns)

    def _choose_reading(self, handle: Any, index: int) -> tuple[str, int, tuple[str, ...]]:
        """The best reading that answers, its call latency, and why better ones were passed over."""
        notes = []
        for name, read in _READERS.items():
            started = self._clock()
            try:
                read(handle)
            except pynvml.NVMLError as error:
                notes.append(f"no {name}: {error}")
                continue
            if name == USAGE and pynvml.nvmlDeviceGetArchitecture(handle) >= _AMPERE:
                notes.append("GetPowerUsage is a 1 s average on Ampere (except A100) and newer")
            return name, self._clock() - started, tuple(notes)
        raise SensorError(f"NVML: gpu{index} has neither energy nor power: {'; '.join(notes)}")

    def _read_gpu(self, gpu: _Gpu) -> Sample | None:
        try:
            if gpu.retry_ns is not None:
                gpu.handle = self._reacquire(gpu)
            before = self._clock()
            value = _READERS[gpu.reading](gpu.handle)
            after = self._clock()
        except pynvml.NVMLError as error:
            self._failed(gpu, error)
            return None
        if gpu.retry_ns is not None:
            _LOG.warning("%s answers again", gpu.device.id)
            gpu.retry_ns, gpu.failure = None, ""
        gpu.latency_ns = after - before
        t_ns = (before + after) // 2
        if gpu.reading == COUNTER:
            return Sample(t_ns, gpu.device.id, energy_mj=value, source=self.name)
        return Sample(t_ns, gpu.device.id, power_mw=value, source=self.name)

    def _failed(self, gpu: _Gpu, error: Exception) -> None:
        if gpu.retry_ns is None:
            _LOG.warning("%s cannot be read: %s; trying again each second", gpu.device.id, error)
        gpu.retry_ns = self._clock() + _RETRY_NS
        gpu.failure = str(error)

    def _reacquire(self, gpu: _Gpu) -> Any:
        """A fresh handle by UUID: after a driver reload the old one is dead, and indices may move."""
        try:
            return pynvml.nvmlDeviceGetHandleByUUID(gpu.device.uuid)
        except pynvml.NVMLError_Uninitialized:
            pynvml.nvmlInit()
            return pynvml.nvmlDeviceGetHandleByUUID(gpu.device.uuid)


def _refuse_mig(handle: Any, index: int) -> None:
    """Raise for a device in MIG mode: drivers disagree whether its counter is the slice's or the GPU's."""
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return  # older than Ampere, or a GeForce: no MIG
    if current == pynvml.NVML_DEVICE_MIG_ENABLE:
        raise SensorError(
            f"NVML: gpu{index} is in MIG mode, whose energy readings are not reliable per instance: "
            f"disable it (nvidia-smi -i {index} -mig 0) or leave it out (--devices)"
        )


def _context(handle: Any) -> tuple[str, ...]:
    """Power limit and clock at start: context for whoever compares runs."""
    notes = []
    try:
        notes.append(f"power limit {pynvml.nvmlDeviceGetPowerManagementLimit(handle) // MW_PER_WATT} W")
        notes.append(f"SM clock {pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)} MHz")
    except pynvml.NVMLError as error:
        notes.append(f"power limit or clock not known: {error}")
    return tuple(notes)


def _explain(error: Any) -> str:
    """The error and, where one is known, the way out."""
    way_out = _WAYS_OUT.get(error.value)
    return f"{error} ({way_out})" if way_out else str(error)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
