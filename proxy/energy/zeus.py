"""GPUs through Zeus (NVIDIA and AMD): the only file that imports it, and late, as it is large.

Only cumulative counters are taken from it. Its windows and its power polling are not used: windows that
overlap count twice there, and polled power loses what lies between the polls.
"""

import importlib
from collections.abc import Callable
from typing import Any

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.meter import Found, SensorError
from proxy.energy.selection import Selection, pick


class ZeusSource:
    """The GPUs that ``zeus.device.get_gpus`` finds and that have an energy counter."""

    name = "zeus"
    interval_s: float | None = None

    def __init__(self, selection: Selection | None = None, clock: Callable[[], int] = now_ns) -> None:
        self._selection = selection or Selection()
        self._clock = clock
        self._gpus: Any = None
        self._errors: type[Exception] = SensorError  # Zeus' own base, once it is imported
        self._indices: list[int] = []

    def open(self) -> list[Found]:
        """Find the devices; raises :class:`SensorError` without the package, a GPU or a counter."""
        try:
            device = importlib.import_module("zeus.device")
            self._errors = importlib.import_module("zeus.exception").ZeusBaseError
        except ImportError as error:
            raise SensorError("zeus: not installed: pip install 'jouleproxy[zeus]'") from error
        try:
            self._gpus = device.get_gpus()
            names = [self._gpus.get_name(i) for i in range(len(self._gpus))]
            self._indices = pick(self._selection, [f"{i}" for i in range(len(names))])
            for i in self._indices:
                if not self._gpus.supports_get_total_energy_consumption(i):
                    raise SensorError(f"zeus: gpu{i} ({names[i]}) has no energy counter: use nvml")
        except (RuntimeError, OSError, self._errors) as error:
            raise SensorError(f"zeus: {error}") from error
        if any("simulated" in names[i] for i in self._indices):
            self.name = "zeus-simulated"
        return [self._found(i, names[i]) for i in self._indices]

    def read(self) -> list[Sample]:
        """The counter of each device; one that fails is left out."""
        samples = []
        for i in self._indices:
            try:
                before = self._clock()
                energy_mj = float(self._gpus.get_total_energy_consumption(i))
            except self._errors:
                continue
            t_ns = (before + self._clock()) // 2
            samples.append(Sample(t_ns, f"gpu{i}", energy_mj=energy_mj, source=self.name))
        return samples

    def close(self) -> None:
        """Nothing to give back: Zeus keeps its handles for the life of the process."""
        self._indices = []

    def _found(self, index: int, name: str) -> Found:
        return Found(Device(id=f"gpu{index}", name=name, source=self.name), "energy counter", None, None)
