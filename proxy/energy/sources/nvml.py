"""Read NVIDIA GPUs through NVML; ``nvml_calls`` has the calls for one device.

A device is read by its cumulative energy counter (Volta and newer), else by power: ``POWER_INSTANT``, the
driver's ring buffer, ``POWER_AVERAGE`` or ``GetPowerUsage``, in this order. Every poll is reported, equal
values included: the core integrates power, and dropping equal readings would lose constant loads. A reading
that is an average over the last second gets the time of the middle of that second. If the version of the
driver contains "simulated", the source is named ``nvml-simulated``.

A device that cannot be opened or has no reading is skipped and reported; the others are measured. A function
that is missing in an older driver only means that its information is not available.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pynvml

from proxy.clock import WallAnchor, now_ns
from proxy.core.events import Device, Sample
from proxy.energy.device_names import Selection, pick
from proxy.energy.source import Found, SensorError, SourceOptions, StallDetector
from proxy.energy.sources.nvml_calls import (
    AVERAGES,
    CAUTIONS,
    COUNTER,
    HOST,
    INSTANT,
    PREFERENCE,
    READERS,
    RING,
    USAGE,
    USAGE_AVERAGE,
    context,
    explain,
    host_mw,
    is_average,
    max_watts,
    refuse_mig,
    ring_points,
    text_of,
    utilisation,
    works,
)
from proxy.energy.sources.ring import PowerRing
from proxy.units import NS_PER_MS, NS_PER_SECOND, seconds_from_ns

_LOG = logging.getLogger(__name__)
_RETRY_NS: Final = NS_PER_SECOND
_ODD_CALL_NS: Final = NS_PER_MS  # shorter calls are never suspect
_LATENCY_MEMORY: Final = 8  # calls over which the mean latency is taken
_GAIN_ERROR: Final = 0.05  # per board, up to about 5 % (arXiv 2312.02741)
_POWER_ERROR: Final = 0.10  # polled power: up to 9 % off an external meter (same source)
_HALF_AVERAGE_NS: Final = NS_PER_SECOND // 2


@dataclass(slots=True)
class _Gpu:
    """One device that is read; ``retry_ns`` is the time of the next attempt while it fails, else None."""

    device: Device
    index: int
    handle: Any
    reading: str
    notes: tuple[str, ...] = ()
    latency_ns: int = 0
    retry_ns: int | None = None
    failure: str = ""
    ring: PowerRing = field(default_factory=PowerRing)


class NvmlSource:
    """The GPUs of this host.

    Args:
        selection: The GPUs to read (``--devices``, CUDA_VISIBLE_DEVICES); None: all.
        clock: Monotonic clock in nanoseconds.
        host: On Grace Hopper, also read the rest of each module, as a device of kind ``host``.
        anchor: Returns simultaneous readings of the wall clock and of ``clock``, for the driver's own stamps.
    """

    interval_s: float | None = None

    def __init__(
        self,
        selection: Selection | None = None,
        clock: Callable[[], int] = now_ns,
        *,
        host: bool = False,
        anchor: Callable[[], WallAnchor] = WallAnchor.take,
    ) -> None:
        self.name = "nvml"
        self._selection = selection or Selection()
        self._clock = clock
        self._host = host
        self._anchor = anchor
        self._gpus: list[_Gpu] = []
        self._left_out: dict[int, str] = {}
        self._stalls = StallDetector()

    def open(self) -> list[Found]:
        """Load the driver's library and find the devices; raises :class:`SensorError` with the remedy."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise SensorError(f"NVML: {explain(error)}") from error
        try:
            if "simulated" in (text_of(pynvml.nvmlSystemGetDriverVersion) or ""):
                self.name = "nvml-simulated"
            self._gpus = [gpu for i in self._chosen() for gpu in self._opened(i)]
        except pynvml.NVMLError as error:
            self.close()
            raise SensorError(f"NVML: {explain(error)}") from error
        except SensorError:
            self.close()
            raise
        if not self._gpus:
            self.close()
            why = "; ".join(self._left_out.values())
            raise SensorError(f"NVML: {why or 'the driver sees no GPU, or CUDA_VISIBLE_DEVICES hides all'}")
        return [Found(g.device, g.reading, None, seconds_from_ns(g.latency_ns), g.notes) for g in self._gpus]

    def left_out(self) -> tuple[str, ...]:
        """Return one line for each GPU that was found but cannot be measured."""
        return tuple(self._left_out.values())

    def read(self) -> list[Sample]:
        """Return the new readings; a device that fails is logged once and tried again every second."""
        samples = []
        for gpu in self._gpus:
            if gpu.retry_ns is None or self._clock() >= gpu.retry_ns:
                samples += [self._with_power(gpu, sample) for sample in self._read_gpu(gpu)]
        return samples

    def counters(self) -> tuple[str, ...]:
        """Return the ids of the devices that are read by their energy counter."""
        return tuple(gpu.device.id for gpu in self._gpus if gpu.reading == COUNTER)

    def peek(self, device: str) -> Sample | None:
        """Return one device's counter; None while it fails."""
        gpu = next(gpu for gpu in self._gpus if gpu.device.id == device)
        samples = self._read_gpu(gpu) if gpu.retry_ns is None else []
        return samples[0] if samples else None

    def failures(self) -> dict[str, str]:
        """Return the devices that cannot be read now, with the error."""
        return {g.device.id: g.failure for g in self._gpus if g.retry_ns is not None}

    def processes(self) -> dict[str, dict[int, float | None]]:
        """Return, for each device, the SM utilisation in percent by process id; None if it is not known.

        A device whose driver does not list processes is left out. Process ids are those of the host's
        namespace.
        """
        found = {}
        for gpu in self._gpus:
            try:
                running = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
            except pynvml.NVMLError:
                continue
            shares = utilisation(gpu.handle)
            found[gpu.device.id] = {p.pid: shares.get(p.pid) for p in running}
        return found

    def close(self) -> None:
        """Shut NVML down; never raises."""
        self._gpus = []
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            _LOG.debug("NVML shutdown: %s", error)

    def _chosen(self) -> list[int]:
        """Return the indices of the GPUs to read; one whose UUID is unavailable can be named by its index."""

        def uuid(index: int) -> str:
            return text_of(lambda: pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))) or ""

        return pick(self._selection, [uuid(i) for i in range(pynvml.nvmlDeviceGetCount())])

    def _opened(self, index: int) -> list[_Gpu]:
        """Open one GPU and its host; return nothing if it cannot be read, and keep the reason."""
        try:
            return self._open_gpu(index)
        except pynvml.NVMLError as error:
            self._left_out[index] = f"gpu{index} is skipped: {explain(error)}"
        except SensorError as error:
            self._left_out[index] = f"gpu{index} is skipped: {error}"
        return []

    def _open_gpu(self, index: int) -> list[_Gpu]:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        refuse_mig(handle, index)
        reading, latency_ns, notes = self._choose_reading(handle)
        device = Device(
            id=f"gpu{index}",
            name=text_of(lambda: pynvml.nvmlDeviceGetName(handle)),
            uuid=text_of(lambda: pynvml.nvmlDeviceGetUUID(handle)),
            source=self.name,
            gain_error=_GAIN_ERROR if reading == COUNTER else _POWER_ERROR,
            max_watts=max_watts(handle),
        )
        found = [_Gpu(device, index, handle, reading, (*notes, *context(handle)), latency_ns)]
        if self._host and works(host_mw, handle):
            rest = Device(f"host{index}", f"CPU and memory of the module of gpu{index}", kind="host")
            found.append(_Gpu(msgspec.structs.replace(rest, uuid=device.uuid), index, handle, HOST))
        return found

    def _choose_reading(self, handle: Any) -> tuple[str, int, tuple[str, ...]]:
        """Return the best reading that works, its call latency in ns, and notes about the rejected ones."""
        notes = []
        for name in PREFERENCE:
            started = self._clock()
            try:
                READERS[name](handle)
            except (pynvml.NVMLError, IndexError) as error:
                notes.append(f"no {name}: {error}")
                continue
            latency_ns = self._clock() - started
            notes += CAUTIONS.get(name, ())
            if name == USAGE and is_average(handle):
                name = USAGE_AVERAGE  # noqa: PLW2901
            return name, latency_ns, tuple(notes)
        raise SensorError(f"it has neither an energy nor a power reading: {'; '.join(notes)}")

    def _read_gpu(self, gpu: _Gpu) -> list[Sample]:
        try:
            if gpu.retry_ns is not None:
                gpu.handle = self._reacquire(gpu)
            samples = self._timed(gpu) or self._timed(gpu) or self._timed(gpu)  # again if it was interrupted
        except pynvml.NVMLError as error:
            self._failed(gpu, error)
            return []
        if gpu.retry_ns is not None:
            _LOG.warning("%s can be read again", gpu.device.id)
            gpu.retry_ns, gpu.failure = None, ""
        return samples

    def _timed(self, gpu: _Gpu) -> list[Sample]:
        """Read a device; return nothing if the call took so long that the thread must have been interrupted.

        The time of the reading is not known then. For a device whose calls are always slow, the mean latency
        adapts within a few calls, so that its readings are accepted.
        """
        before = self._clock()
        samples = self._samples(gpu, before)
        latency_ns = self._clock() - before
        odd = latency_ns > max(_ODD_CALL_NS, 4 * gpu.latency_ns) and gpu.reading != RING
        gpu.latency_ns += (latency_ns - gpu.latency_ns) // _LATENCY_MEMORY
        return [] if odd else samples

    def _samples(self, gpu: _Gpu, before_ns: int) -> list[Sample]:
        """Call the driver; the stamp of a reading is the middle of the call."""
        if gpu.reading == RING:
            points = ring_points(gpu.handle, gpu.ring.last_us)
            return gpu.ring.new_samples(gpu.device.id, self.name, points, self._anchor())
        value = READERS[gpu.reading](gpu.handle)
        t_ns = (before_ns + self._clock()) // 2
        if gpu.reading == COUNTER:
            return [Sample(t_ns, gpu.device.id, energy_mj=value, source=self.name)]
        if gpu.reading in AVERAGES:
            t_ns -= _HALF_AVERAGE_NS
        return [Sample(t_ns, gpu.device.id, power_mw=value, source=self.name)]

    def _with_power(self, gpu: _Gpu, sample: Sample) -> Sample:
        """Add power to the reading of a stalled counter, so that the core can detect a stuck one."""
        energy_mj = sample.energy_mj
        if energy_mj is None or not self._stalls.is_stalled(gpu.device.id, energy_mj, sample.t_ns):
            return sample
        for name in (INSTANT, USAGE):
            try:
                return msgspec.structs.replace(sample, power_mw=READERS[name](gpu.handle))
            except pynvml.NVMLError:
                continue
        return sample

    def _failed(self, gpu: _Gpu, error: Exception) -> None:
        if gpu.retry_ns is None:
            _LOG.warning("%s cannot be read: %s; trying again every second", gpu.device.id, error)
        gpu.retry_ns = self._clock() + _RETRY_NS
        gpu.failure = str(error)

    def _reacquire(self, gpu: _Gpu) -> Any:
        """Return a new handle by UUID: a driver reload invalidates the old one and may change indices."""
        if all(other.retry_ns is not None for other in self._gpus):
            self._restart()  # the driver may have been reloaded, which invalidates the library's state
        if gpu.device.uuid is None:
            return pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
        return pynvml.nvmlDeviceGetHandleByUUID(gpu.device.uuid)

    def _restart(self) -> None:
        with contextlib.suppress(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlShutdown()
        pynvml.nvmlInit()


def create(options: SourceOptions) -> NvmlSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``nvml``."""
    selection = Selection(options.devices, options.environ.get("CUDA_VISIBLE_DEVICES"))
    return NvmlSource(selection, host=options.host_energy)
