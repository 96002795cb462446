"""Read the devices of a simulator from its shared file. Source name: ``simulated``.

The substitute NVML library reads the same file; this source needs no C compiler. The layout of the file is in
:mod:`proxy.core.energy.power_timeline`.
"""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.clock import now_ns
from proxy.core.energy import power_timeline as layout
from proxy.core.events import Device, Sample
from proxy.energy.source import Found, SensorError, SourceOptions
from proxy.units import seconds_from_ns

_ATTEMPTS: Final = 1000  # bounds the wait for a writer that was killed while it wrote


class SimulatedSource:
    """The devices of a simulator's shared file; used only if it is requested by name, never by ``auto``."""

    name = "simulated"
    interval_s: float | None = None

    def __init__(self, path: Path, clock: Callable[[], int] = now_ns) -> None:
        self._path = path
        self._clock = clock
        self._map: mmap.mmap | None = None
        self._blocks: list[layout.DeviceBlock] = []
        self._shown: dict[int, tuple[float, int]] = {}  # device -> (offset at its last reset, last value)

    def open(self) -> list[Found]:
        """Map the file; raises :class:`SensorError` if it does not exist or is not a simulator's."""
        try:
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise SensorError(f"simulated: cannot read {self._path}: {error}") from error
        head = self._map[: layout.HEADER.size].ljust(layout.HEADER.size, b"\0")
        magic, count, *_ = layout.HEADER.unpack(head)
        if magic != layout.MAGIC or len(self._map) < layout.HEADER.size + count * layout.DEVICE_BYTES:
            raise SensorError(f"simulated: {self._path} is not a simulator's power timeline")
        view = memoryview(self._map)
        self._blocks = [layout.DeviceBlock(view, i) for i in range(count)]
        return [self._found(block) for block in self._blocks]

    def read(self) -> list[Sample]:
        """Return the counter of each device that is not simulated as lost."""
        samples = (self._sample(block) for block in self._blocks)
        return [sample for sample in samples if sample is not None]

    def counters(self) -> tuple[str, ...]:
        """Return the ids of all devices."""
        return tuple(f"gpu{block.index}" for block in self._blocks)

    def peek(self, device: str) -> Sample | None:
        """Return one device's counter; None while it is simulated as lost."""
        return self._sample(self._blocks[int(device.removeprefix("gpu"))])

    def close(self) -> None:
        """Unmap the file; never raises."""
        for block in self._blocks[:1]:
            block.buffer.release()
        self._blocks = []
        if self._map is not None:
            self._map.close()
            self._map = None

    def _sample(self, block: layout.DeviceBlock) -> Sample | None:
        if block.value("error_all"):
            return None
        t_ns, energy_mj, reset = self._stable(block)
        last_reset, last_mj = self._shown.get(block.index, (reset, 0))
        if reset == last_reset:  # a counter never decreases: power written late changes no past value
            energy_mj = max(energy_mj, last_mj)
        self._shown[block.index] = reset, energy_mj
        return Sample(t_ns, f"gpu{block.index}", energy_mj=energy_mj, source=self.name)

    def _stable(self, block: layout.DeviceBlock) -> tuple[int, int, float]:
        """Return stamp, counter and offset of its last reset, of one consistent state (seqlock).

        The sequence number is odd while the simulator writes. Attempts are limited, because it may have been
        killed while it wrote.
        """
        t_ns, energy_mj, reset = 0, 0, 0.0
        for _ in range(_ATTEMPTS):
            before = int(block.value("sequence"))
            t_ns = self._clock()
            energy_mj, reset = block.counter_mj(t_ns), block.value("offset_mj")
            if before % 2 == 0 and before == block.value("sequence"):
                break
        return t_ns, energy_mj, reset

    def _found(self, block: layout.DeviceBlock) -> Found:
        names = layout.NAME.unpack_from(block.buffer, block.base + layout.NAME_OFFSET)
        name, uuid = (raw.rstrip(b"\0").decode() for raw in names)
        device = Device(id=f"gpu{block.index}", name=name, uuid=uuid, source=self.name)
        period_s = seconds_from_ns(int(block.value("update_ns")))
        return Found(device, "energy counter", period_s or None, None, ("simulated, not measured",))


def create(options: SourceOptions) -> SimulatedSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``simulated``."""
    return SimulatedSource(Path(options.argument))
