"""Part a: NVML as it is on this GPU: fields, latencies, period and quantum of the counter, agreement.

The observer effect is that of polls between the steps of an engine, in its own thread: an upper bound of what
a meter in another process costs.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pynvml

from proxy.clock import now_ns
from proxy.gpu.composition import Composition, Entry, Work, tokens
from proxy.gpu.device import LOADS, Device, per_second
from proxy.gpu.engine import Runner
from proxy.gpu.measured import joules_per_step
from proxy.units import NS_PER_SECOND, ns_from_seconds

_POWER_AVERAGE: Final = 185
_POWER_INSTANT: Final = 186
_CALLS: Final = 100
_POLL_SECONDS: Final = 3.0
_VIRTUAL_TICK: Final = 2e-4
_SETTLE_SECONDS: Final = 1.5  # power averages over up to 1 s
RATES: Final = (0, 5, 20, 50, 100)  # polls per second


def _field(number: int) -> Callable[[Any], float]:
    def read(handle: Any) -> float:
        (value,) = pynvml.nvmlDeviceGetFieldValues(handle, [(number, 0)])
        if value.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(value.nvmlReturn)
        return float(value.value.uiVal)

    return read


def _ring(handle: Any) -> float:
    _, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    return float(len(samples))


# Every reading that the proxy takes, and those that explain it.
READINGS: Final[dict[str, Callable[[Any], Any]]] = {
    "energy counter, mJ": pynvml.nvmlDeviceGetTotalEnergyConsumption,
    "power usage, mW": pynvml.nvmlDeviceGetPowerUsage,
    "power instant, mW": _field(_POWER_INSTANT),
    "power average, mW": _field(_POWER_AVERAGE),
    "power samples in the driver's ring": _ring,
    "power limit, mW": pynvml.nvmlDeviceGetPowerManagementLimit,
    "SM clock, MHz": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
    "reasons of a lowered clock, bit mask": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    "temperature, degrees Celsius": lambda handle: pynvml.nvmlDeviceGetTemperature(handle, 0),
    "compute processes": lambda handle: len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    "name": pynvml.nvmlDeviceGetName,
    "MIG mode": lambda handle: pynvml.nvmlDeviceGetMigMode(handle)[0],
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One field: its value or NVML's error, and the time of a call in microseconds."""

    value: Any
    error: str | None
    median_us: float | None
    p95_us: float | None


def readings(device: Device) -> dict[str, Reading]:
    """Read every field; one that the driver lacks has an error and no value."""
    return {name: _timed(read, device.handle) for name, read in READINGS.items()}


def _timed(read: Callable[[Any], Any], handle: Any) -> Reading:
    times = []
    try:
        for _ in range(_CALLS):
            start = now_ns()
            value = read(handle)
            times.append((now_ns() - start) / 1e3)
    except pynvml.NVMLError as error:
        return Reading(None, str(error), None, None)
    value = value.decode() if isinstance(value, bytes) else value
    return Reading(value, None, float(np.median(times)), float(np.quantile(times, 0.95)))


@dataclass(frozen=True, slots=True)
class CounterFacts:
    """The energy counter, polled as fast as possible while the device idles.

    ``period_ms``: median time between changes, with its 5th and 95th percentile; ``quantum_mj``: greatest
    common divisor of all changes.
    """

    period_ms: float | None
    period_low_ms: float | None
    period_high_ms: float | None
    quantum_mj: int | None
    polls_per_second: float


def counter(device: Device) -> CounterFacts:
    """Poll the counter."""
    tick = _VIRTUAL_TICK if device.simulated else 0.0
    begin = device.now_ns()
    end = begin + ns_from_seconds(_POLL_SECONDS)
    changes: list[tuple[int, int]] = []
    last, polls = None, 0
    while (t_ns := device.now_ns()) < end:
        mj = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(device.handle))
        if last is not None and mj != last:
            changes.append((t_ns, mj - last))
        last, polls = mj, polls + 1
        device.idle(tick)
    if len(changes) < 3:
        return CounterFacts(None, None, None, None, polls / _POLL_SECONDS)
    periods = np.diff([t for t, _ in changes]) / 1e6
    low, middle, high = np.quantile(periods, (0.05, 0.5, 0.95))
    quantum = int(np.gcd.reduce([change for _, change in changes[1:]]))
    return CounterFacts(float(middle), float(low), float(high), quantum, polls / _POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean watts under one load by each way of reading; None where there is none.

    ``limited``: NVML's reasons of a lowered clock that were active at any time, as a bit mask.
    """

    load: str
    counter: float | None
    instant: float | None
    average: float | None
    usage: float | None
    clock_mhz: float | None
    limited: int | None


def agreement(device: Device, seconds: float) -> list[Agreement]:
    """Compare the readings under known loads, each held for some seconds."""
    return [_under(device, load, seconds) for load in LOADS]


def _under(device: Device, load: str, seconds: float) -> Agreement:
    found: dict[str, list[float]] = {"instant": [], "average": [], "usage": [], "clock": [], "limited": []}
    names = {
        "instant": "power instant, mW",
        "average": "power average, mW",
        "usage": "power usage, mW",
        "clock": "SM clock, MHz",
        "limited": "reasons of a lowered clock, bit mask",
    }
    _hold(device, load, _SETTLE_SECONDS)
    start = device.now_ns()
    until = start + ns_from_seconds(seconds)
    while device.now_ns() < until:
        device.load(load)
        for key, name in names.items():
            try:
                found[key].append(float(READINGS[name](device.handle)))
            except pynvml.NVMLError:
                continue
    reasons = [int(value) for value in found.pop("limited")]
    means = {key: float(np.mean(values)) if values else None for key, values in found.items()}
    watts = {key: mean / 1e3 if mean is not None and key != "clock" else mean for key, mean in means.items()}
    counted = per_second(device.edges(start, device.now_ns()))
    return Agreement(
        load,
        counted,
        watts["instant"],
        watts["average"],
        watts["usage"],
        watts["clock"],
        functools.reduce(operator.or_, reasons) if reasons else None,
    )


def _hold(device: Device, load: str, seconds: float) -> None:
    until = device.now_ns() + ns_from_seconds(seconds)
    while device.now_ns() < until:
        device.load(load)


@dataclass(frozen=True, slots=True)
class Observed:
    """Cost of a step while the counter and the power are polled at a rate.

    On a GPU this is beside the constant poll of the counter by ``CudaDevice``, so the effect of the first
    polls is not in it.
    """

    polls_per_second: int
    joules_per_step: float | None
    seconds_per_step: float


def observer(device: Device, runner: Runner, seconds: float) -> list[Observed]:
    """Repeat one step of eight decoding requests at each rate of polls."""
    composition = Composition.of([Work(1, 128)] * min(8, runner.slots))
    return [_observed(device, runner, composition, rate, seconds) for rate in RATES]


def _observed(
    device: Device, runner: Runner, composition: Composition, rate: int, seconds: float
) -> Observed:
    works = composition.works()
    entries = [Entry(slot, tokens(1, slot), work.context) for slot, work in enumerate(works)]
    start = device.now_ns()
    until = start + ns_from_seconds(seconds)
    due = start
    times: list[tuple[int, int]] = []
    while device.now_ns() < until:
        times.append(device.step(works, lambda: runner.forward(entries)))
        if rate and device.now_ns() >= due:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(device.handle)
            pynvml.nvmlDeviceGetPowerUsage(device.handle)
            due += NS_PER_SECOND // rate
    joules = joules_per_step(device.edges(start, times[-1][1]), times)
    length = (times[-1][1] - times[0][0]) / len(times) / NS_PER_SECOND
    return Observed(rate, joules.mean if joules else None, length)
