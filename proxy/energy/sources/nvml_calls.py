"""Calls of the NVML library for one device handle: readings, limits, processes, explanations of errors.

Only this module and ``nvml`` import pynvml. Functions raise ``pynvml.NVMLError`` unless stated otherwise; the
source decides which device it affects.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import pynvml

from proxy.core.energy.plausible import EXCURSION, GENERIC_WATTS
from proxy.energy.source import SensorError
from proxy.units import MW_PER_WATT

_POWER_AVERAGE: Final = 185  # NVML_FI_DEV_POWER_AVERAGE
_POWER_INSTANT: Final = 186  # NVML_FI_DEV_POWER_INSTANT
_GPU_SCOPE, _MODULE_SCOPE = 0, 1  # NVML_POWER_SCOPE_GPU, NVML_POWER_SCOPE_MODULE
_AMPERE: Final = 7  # NVML_DEVICE_ARCH_AMPERE
_GA100: Final = ("A100", "A30", "A800")  # Ampere, but GetPowerUsage is instantaneous (nvml.h)
_LEAST_LIMIT_WATTS: Final = 10.0  # no GPU has a lower limit; lower values are not limits

COUNTER: Final = "energy counter"
INSTANT: Final = "power (instant)"
RING: Final = "power (driver's ring buffer)"
AVERAGE: Final = "power (1 s average)"
USAGE: Final = "power (GetPowerUsage)"
USAGE_AVERAGE: Final = "power (GetPowerUsage, 1 s average)"
HOST: Final = "power (module less GPU, instant)"

_REMEDIES: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no libnvidia-ml.so.1: install the NVIDIA driver, or in a "
    "container run with --gpus all (NVIDIA container toolkit, capability 'utility')",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: modprobe nvidia, or "
    "start the container with --gpus all",
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission to open the NVIDIA device files: add this user "
    "to the group of /dev/nvidia* (video or render)",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and library versions differ: reload the "
    "nvidia module or reboot",
}

AVERAGES: Final = (AVERAGE, USAGE_AVERAGE)


def _counter_mj(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _usage_mw(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(handle))


def _fields_mw(handle: Any, *fields: tuple[int, int]) -> list[float]:
    """Read power fields by (field, scope), in mW; an error code of a field raises ``NVMLError``."""
    values = pynvml.nvmlDeviceGetFieldValues(handle, list(fields))
    for value in values:
        if value.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(value.nvmlReturn)
    return [float(value.value.uiVal) for value in values]


def host_mw(handle: Any) -> float:
    """Return the power of a Grace Hopper module without its GPU in mW, both read in one call."""
    module, gpu = _fields_mw(handle, (_POWER_INSTANT, _MODULE_SCOPE), (_POWER_INSTANT, _GPU_SCOPE))
    return max(module - gpu, 0.0)


READERS: Final[dict[str, Callable[[Any], float]]] = {
    COUNTER: _counter_mj,
    INSTANT: lambda handle: _fields_mw(handle, (_POWER_INSTANT, _GPU_SCOPE))[0],
    RING: lambda handle: ring_points(handle, 0)[-1][1],
    AVERAGE: lambda handle: _fields_mw(handle, (_POWER_AVERAGE, _GPU_SCOPE))[0],
    USAGE: _usage_mw,
    USAGE_AVERAGE: _usage_mw,
    HOST: host_mw,
}
CAUTIONS: Final = {
    INSTANT: ("power readings may see only a part of the time (H100, A100: 25 ms of every 100)",),
    AVERAGE: ("an average over 1 s: what is shorter is not resolved",),
}
PREFERENCE: Final = (COUNTER, INSTANT, RING, AVERAGE, USAGE)


def ring_points(handle: Any, after_us: int) -> list[tuple[int, float]]:
    """Return pairs (Unix microseconds, milliwatts) of the driver's buffer; empty if nothing is newer."""
    try:
        _, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, after_us)
    except pynvml.NVMLError_NotFound:
        return []
    return [(int(s.timeStamp), float(s.sampleValue.uiVal)) for s in samples]


def works(read: Callable[[Any], float], handle: Any) -> bool:
    """Return whether a reading succeeds."""
    try:
        read(handle)
    except pynvml.NVMLError:
        return False
    return True


def text_of(call: Callable[[], str | bytes]) -> str | None:
    """Return the text of a driver call; None if it fails or the driver lacks the function."""
    try:
        return _text(call())
    except pynvml.NVMLError:
        return None


def is_average(handle: Any) -> bool:
    """Return whether ``GetPowerUsage`` is a 1 s average: Ampere and newer except GA100 (nvml.h).

    A driver without a function for the architecture is older than Ampere.
    """
    try:
        if pynvml.nvmlDeviceGetArchitecture(handle) < _AMPERE:
            return False
    except pynvml.NVMLError:
        return False
    name = text_of(lambda: pynvml.nvmlDeviceGetName(handle)) or ""
    return not any(model in name for model in _GA100)


def max_watts(handle: Any) -> float | None:
    """Return the largest possible power: the highest limit and excursions above it; None if unknown."""
    limits: list[float] = []
    with contextlib.suppress(pynvml.NVMLError):
        limits.append(pynvml.nvmlDeviceGetPowerManagementLimit(handle) / MW_PER_WATT)
    with contextlib.suppress(pynvml.NVMLError):
        limits.append(pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)[1] / MW_PER_WATT)
    usable = [watts for watts in limits if _LEAST_LIMIT_WATTS <= watts <= GENERIC_WATTS]
    return max(usable) * EXCURSION if usable else None


def utilisation(handle: Any) -> dict[int, float]:
    """Return the recent SM utilisation in percent by process id; empty if the driver does not report it."""
    try:
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    except pynvml.NVMLError:
        return {}
    return {s.pid: float(s.smUtil) for s in sorted(samples, key=lambda s: s.timeStamp)}


def refuse_mig(handle: Any, index: int) -> None:
    """Raise :class:`SensorError` for a device in MIG mode.

    Drivers disagree whether its counter is that of the instance or of the entire GPU.
    """
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return  # older than Ampere, or a GeForce: no MIG
    if current == pynvml.NVML_DEVICE_MIG_ENABLE:
        raise SensorError(
            f"it is in MIG mode, whose energy readings are not reliable per instance: "
            f"disable it (nvidia-smi -i {index} -mig 0) or exclude the GPU (--devices)"
        )


def context(handle: Any) -> tuple[str, ...]:
    """Return power limit and clock at start, for the comparison of runs."""
    notes = []
    try:
        notes.append(f"power limit {pynvml.nvmlDeviceGetPowerManagementLimit(handle) // MW_PER_WATT} W")
    except pynvml.NVMLError as error:
        notes.append(f"power limit not known: {error}")
    try:
        notes.append(f"SM clock {pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)} MHz")
    except pynvml.NVMLError as error:
        notes.append(f"SM clock not known: {error}")
    return tuple(notes)


def explain(error: Any) -> str:
    """Return the error and, if known, the remedy."""
    remedy = _REMEDIES.get(error.value)
    return f"{error} ({remedy})" if remedy else str(error)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
