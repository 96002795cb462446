"""Layout of the simulated devices' shared file, and how a meter reads a power timeline.

The file is a header and one block per device: settings behind a sequence lock (odd while the writer is
busy) and a ring of segments ``(t_ns, energy_mj, watts)``: from ``t_ns`` (CLOCK_MONOTONIC) the device
draws ``watts``, and by then had used ``energy_mj``. Energy at any time is therefore exact. The C reader
``simulator/gpu/fake_nvml.c`` declares the same layout; a test compares their sizes.
"""

import struct
from dataclasses import dataclass
from typing import Final

from proxy.units import MW_PER_WATT, NS_PER_SECOND

MAGIC: Final = 0x314D49534C554F4A  # "JOULSIM1", little endian
HEADER: Final = struct.Struct("<QIIii64s")
SEGMENTS: Final = 8192
SEGMENT: Final = struct.Struct("<qdd")
PROCESS: Final = struct.Struct("<IIQ")
PROCESSES: Final = 8
NAME: Final = struct.Struct("96s64s")

FIELDS: Final = {
    "sequence": "Q",
    "segments": "Q",
    "update_ns": "q",
    "phase_ns": "q",
    "average_ns": "q",
    "instant_ns": "q",
    "call_ns": "q",
    "gain": "d",
    "offset_mj": "d",
    "limit_watts": "d",
    "module_watts": "d",
    "rated_watts": "d",  # what its limit may be set to, at most; 0: not permitted
    "memory_total": "Q",
    "memory_used": "Q",
    "utilization": "I",
    "temperature": "I",
    "sm_mhz": "I",
    "memory_mhz": "I",
    "architecture": "I",
    "mig": "I",
    "error_all": "i",
    "error_energy": "i",
    "error_power": "i",
    "error_fields": "i",
    "error_samples": "i",
    "processes": "I",
}


def _offsets() -> tuple[dict[str, tuple[int, struct.Struct]], int]:
    """Where each field lies in a device block, and where the fields end."""
    offsets, at = {}, 0
    for name, kind in FIELDS.items():
        packer = struct.Struct("<" + kind)
        offsets[name] = (at, packer)
        at += packer.size
    return offsets, at


OFFSETS, _END = _offsets()
PROCESS_OFFSET: Final = _END
NAME_OFFSET: Final = PROCESS_OFFSET + PROCESSES * PROCESS.size
SEGMENT_OFFSET: Final = NAME_OFFSET + NAME.size
DEVICE_BYTES: Final = SEGMENT_OFFSET + SEGMENTS * SEGMENT.size


def mj_between(watts: float, duration_ns: int) -> float:
    """Millijoules of constant power over a time."""
    return watts * MW_PER_WATT * duration_ns / NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class DeviceBlock:
    """One device's block within the file's buffer; reads only.

    A torn read is possible while the writer writes: compare ``value("sequence")`` before and after.
    """

    buffer: memoryview
    index: int

    @property
    def base(self) -> int:
        """Offset of the block in the file."""
        return HEADER.size + self.index * DEVICE_BYTES

    def value(self, field: str) -> float:
        """One setting, by the names of ``FIELDS``."""
        offset, packer = OFFSETS[field]
        value: float = packer.unpack_from(self.buffer, self.base + offset)[0]
        return value

    def segment(self, number: int) -> tuple[int, float, float]:
        """``(t_ns, energy_mj, watts)`` of the segment written as ``number``-th (from 0)."""
        at = self.base + SEGMENT_OFFSET + (number % SEGMENTS) * SEGMENT.size
        t_ns, energy_mj, watts = SEGMENT.unpack_from(self.buffer, at)
        return t_ns, energy_mj, watts

    def energy_mj(self, t_ns: int) -> float:
        """Exact millijoules used by ``t_ns``, since the file was made; before the ring: extrapolated."""
        start_ns, energy_mj, watts = self.segment(self._find(t_ns))
        return energy_mj + mj_between(watts, t_ns - start_ns)

    def oldest_ns(self) -> int:
        """Start of the oldest segment still in the ring."""
        return self.segment(max(0, int(self.value("segments")) - SEGMENTS))[0]

    def edge_ns(self, t_ns: int) -> int:
        """When the device last refreshed its readings, at ``t_ns``."""
        update, phase = int(self.value("update_ns")), int(self.value("phase_ns"))
        return t_ns if update <= 0 else (t_ns - phase) // update * update + phase

    def counter_mj(self, t_ns: int) -> int:
        """What the device's energy counter shows at ``t_ns``, in whole millijoules."""
        exact = self.energy_mj(self.edge_ns(t_ns))
        return max(0, int(self.value("gain") * (exact - self.value("offset_mj"))))

    def _find(self, t_ns: int) -> int:
        """Number of the last segment that starts at or before ``t_ns``, else the oldest."""
        count = int(self.value("segments"))
        low, high = max(0, count - SEGMENTS), count - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.segment(middle)[0] <= t_ns:
                low = middle
            else:
                high = middle - 1
        return low
