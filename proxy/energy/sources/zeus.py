"""Read energy through Zeus: GPUs (NVIDIA, AMD), CPUs by RAPL, SoCs, and zeusd on other hosts.

The only file that imports Zeus, and only when a source is opened, because the import takes seconds. Only
cumulative counters are used. Zeus' measurement windows and power polling are not: overlapping windows count
twice, polled power that does not change is lost, and so is the energy between two events of a power stream
(``tests/proxy/energy/sources/test_zeus.py`` shows the first two).
"""

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.device_names import Selection, pick
from proxy.energy.source import Found, SensorError, SourceOptions, StallDetector
from proxy.units import UJ_PER_MJ

_COUNTER: Final = "energy counter"
_ZEUSD_INTERVAL_S: Final = 0.1
_MAX_WATTS: Final = 3_000.0  # one GPU or CPU package: more than a GB200 superchip (2.7 kW)
_SOC_GPU: Final = ("gpu_mj", "gpu_energy_mj")
_SOC_HOST: Final = ("cpu_total_mj", "cpu_energy_mj", "dram_mj")


class _Counters:
    """Base of sources whose devices each have a function that returns cumulative millijoules."""

    name = "zeus"
    interval_s: float | None = None

    def __init__(self, clock: Callable[[], int] = now_ns) -> None:
        self._clock = clock
        self._counters: dict[str, Callable[[], float]] = {}
        self._power: dict[str, Callable[[], float]] = {}  # mW, read in addition to a stalled counter
        self._stalls = StallDetector()
        self._errors: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)

    def read(self) -> list[Sample]:
        """Return the counter of each device; one that fails is left out."""
        samples = []
        for device, counter in self._counters.items():
            before = self._clock()
            try:
                energy_mj = float(counter())
            except self._errors:
                continue
            t_ns = (before + self._clock()) // 2
            power_mw = None
            if self._stalls.is_stalled(device, energy_mj, t_ns) and device in self._power:
                with contextlib.suppress(*self._errors):
                    power_mw = float(self._power[device]())
            samples.append(Sample(t_ns, device, energy_mj, power_mw, self.name))
        return samples

    def close(self) -> None:
        """Stop reading; Zeus keeps its handles until the process ends."""
        self._counters = {}

    def _module(self, name: str) -> Any:
        """Import a module of Zeus; from then on the errors of Zeus are handled like those of a sensor."""
        try:
            base = importlib.import_module("zeus.exception").ZeusBaseError
            self._errors = (OSError, ValueError, RuntimeError, base)
            return importlib.import_module(name)
        except ImportError as error:
            raise SensorError("zeus: not installed: pip install 'jouleproxy[zeus]'") from error

    def _found(self, device: str, name: str, kind: str = "gpu") -> Found:
        note = ("counters of zeusd on another host",) if self.name.startswith("zeusd") else ()
        found = Device(device, name, source=self.name, kind=kind, max_watts=_MAX_WATTS)
        return Found(found, _COUNTER, None, None, note)


class ZeusSource(_Counters):
    """The GPUs with an energy counter that ``zeus.device.get_gpus`` finds; without a GPU, the SoC.

    Args:
        selection: The GPUs to read (``--devices``); Zeus applies CUDA_VISIBLE_DEVICES itself.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, selection: Selection | None = None, clock: Callable[[], int] = now_ns) -> None:
        super().__init__(clock)
        self._selection = selection or Selection()

    def open(self) -> list[Found]:
        """Find the devices; raises :class:`SensorError` if the package, a GPU or a counter is missing."""
        device = self._module("zeus.device")
        try:
            return self._open_gpus(device.get_gpus())
        except self._errors as error:
            no_gpu = error
        try:
            return self._open_soc(device.get_soc())
        except self._errors:
            raise SensorError(f"zeus: {no_gpu}") from no_gpu

    def _open_gpus(self, gpus: Any) -> list[Found]:
        names = [gpus.get_name(i) for i in range(len(gpus))]
        chosen = pick(self._selection, [f"{i}" for i in range(len(names))])
        for i in chosen:
            if not gpus.supports_get_total_energy_consumption(i):
                raise SensorError(f"zeus: gpu{i} ({names[i]}) has no energy counter: use nvml")
        if any("simulated" in names[i] for i in chosen):
            self.name = "zeus-simulated"
        self._counters = {f"gpu{i}": _bound(gpus.get_total_energy_consumption, i) for i in chosen}
        self._power = {f"gpu{i}": _bound(gpus.get_instant_power_usage, i) for i in chosen}
        if not chosen:
            raise SensorError("zeus: no GPU found")
        return [self._found(f"gpu{i}", names[i]) for i in chosen]

    def _open_soc(self, soc: Any) -> list[Found]:
        """Open the parts of Apple silicon or a Jetson that have a counter of their own."""
        available = soc.get_available_metrics()
        found = []
        for metric in (*_SOC_GPU, *_SOC_HOST):
            if metric in available:
                kind = "gpu" if metric in _SOC_GPU else "host"
                device = "gpu0" if kind == "gpu" else f"soc-{metric.removesuffix('_mj')}"
                self._counters[device] = _soc_counter(soc, metric)
                found.append(self._found(device, f"SoC, {metric}", kind))
        if "gpu0" not in self._counters:
            raise SensorError("zeus: the SoC has no energy counter of its GPU")
        return found


class RaplSource(_Counters):
    """CPU packages and their DRAM, as devices of kind ``host``.

    Zeus finds them, but their files are read here: Zeus starts a process for each file to detect that the
    counter wrapped, and these processes outlive a meter that is killed. At this interval a counter wraps at
    most once between two readings.
    """

    name = "rapl"
    interval_s: float | None = 0.1

    def open(self) -> list[Found]:
        """Find the packages; raises :class:`SensorError` with the remedy."""
        try:
            cpus = self._module("zeus.device").get_cpus()
            for index, cpu in enumerate(cpus.cpus):
                self._counters |= _package(cpus, index, cpu)
            for counter in self._counters.values():
                counter()
        except self._errors as error:
            raise SensorError(
                f"rapl: {error} (energy_uj below /sys/class/powercap is readable by root only: run zeusd and "
                "set ZEUSD_SOCK_PATH, or make it readable; most virtual machines have none)"
            ) from error
        return [self._found(device, f"{device} (RAPL)", "host") for device in self._counters]


class UnwrappedCounter:
    """A RAPL file, as a cumulative counter that does not wrap.

    Args:
        path: File with microjoules.
        range_uj: Value at which it wraps to 0.
    """

    def __init__(self, path: str, range_uj: float) -> None:
        self._path = Path(path)
        self._range_uj = range_uj
        self._last_uj = self._read()
        self._total_uj = self._last_uj

    def _read(self) -> float:
        return float(self._path.read_text())

    def __call__(self) -> float:
        """Return millijoules; raises ``OSError`` or ``ValueError``."""
        now_uj = self._read()
        self._total_uj += (now_uj - self._last_uj) % self._range_uj
        self._last_uj = now_uj
        return self._total_uj / UJ_PER_MJ


class ZeusdSource(_Counters):
    """GPUs of another host, by the cumulative counters of its zeusd.

    Args:
        address: ``HOST:PORT`` of zeusd.
        token: Its token (``ZEUSD_TOKEN``), or None.
        clock: Monotonic clock in nanoseconds.

    Raises:
        SensorError: if the address is malformed.
    """

    name = "zeusd"
    interval_s: float | None = _ZEUSD_INTERVAL_S

    def __init__(self, address: str, token: str | None = None, clock: Callable[[], int] = now_ns) -> None:
        super().__init__(clock)
        self._address = address
        self._host, _, self._port = address.rpartition(":")
        if not self._host or not self._port.isdecimal():
            raise SensorError(f"zeus:{address}: must be HOST:PORT of a zeusd")
        self._token = token
        self._client: Any = None
        self._gpus: list[int] = []

    def open(self) -> list[Found]:
        """Connect and list the GPUs; raises :class:`SensorError`."""
        zeusd = self._module("zeus.utils.zeusd")
        self._errors = (*self._errors, httpx.HTTPError)
        try:
            config = zeusd.ZeusdConfig.tcp(self._host, int(self._port), token=self._token)
            self._client = zeusd.ZeusdClient(config)
            if not self._client.can_read_gpu:
                raise SensorError(f"zeusd: {self._address}: {self._client.auth_error or 'gpu-read is off'}")
            self._gpus = list(self._client.gpu_ids)
            names = {gpu.id: gpu.name for gpu in self._client.gpus}
        except self._errors as error:
            raise SensorError(f"zeusd: {self._address}: {error}") from error
        if not self._gpus:
            raise SensorError(f"zeusd: {self._address} has no GPU")
        return [self._found(f"{self._host}/gpu{i}", names[i]) for i in self._gpus]

    def read(self) -> list[Sample]:
        """Read all counters in one exchange, stamped at its middle; raises :class:`SensorError`."""
        before = self._clock()
        try:
            counters = self._client.get_gpu_energy(self._gpus)
        except self._errors as error:
            raise SensorError(f"zeusd: {self._address}: {error}") from error
        t_ns = (before + self._clock()) // 2
        return [
            Sample(t_ns, f"{self._host}/gpu{i}", energy_mj=float(mj), source=self.name)
            for i, mj in counters.items()
        ]


def _bound(function: Callable[[int], float], index: int) -> Callable[[], float]:
    return lambda: function(index)


def _package(cpus: Any, index: int, cpu: Any) -> dict[str, Callable[[], float]]:
    """Return the counters of one CPU package, in mJ."""
    files = {f"cpu{index}": getattr(cpu, "rapl_file", None), f"dram{index}": getattr(cpu, "dram", None)}
    found: dict[str, Callable[[], float]] = {
        device: UnwrappedCounter(file.energy_uj_path, file.max_energy_range_uj)
        for device, file in files.items()
        if file is not None
    }
    if not found:  # through zeusd, which reads the files as root
        found[f"cpu{index}"] = lambda: float(cpus.get_total_energy_consumption(index).cpu_mj)
        if cpu.supports_get_dram_energy_consumption():
            found[f"dram{index}"] = lambda: float(cpus.get_total_energy_consumption(index).dram_mj)
    return found


def _soc_counter(soc: Any, metric: str) -> Callable[[], float]:
    return lambda: float(getattr(soc.get_total_energy_consumption(), metric))


def create(options: SourceOptions) -> ZeusSource | ZeusdSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``zeus``.

    With an argument it reads a zeusd on another host. Zeus applies CUDA_VISIBLE_DEVICES itself.
    """
    if options.argument:
        return ZeusdSource(options.argument, options.environ.get("ZEUSD_TOKEN"))
    return ZeusSource(Selection(options.devices))


def create_rapl(_options: SourceOptions) -> RaplSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``rapl``."""
    return RaplSource()
