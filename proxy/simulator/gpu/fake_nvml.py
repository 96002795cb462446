"""A fake NVML library that reports simulated GPUs: its build, and the writer of its shared file.

``build`` compiles ``fake_nvml.c`` to ``libnvidia-ml.so.1``; a process started with ``environment`` loads it
in place of NVIDIA's library. It reads power over time from a memory-mapped file, which ``FakeNvml`` writes;
the file's layout is in :mod:`proxy.core.energy.power_timeline`. Device names contain "simulated", and records
have the source ``nvml-simulated`` (``simulated`` where Python reads the file without the library).
"""

import hashlib
import mmap
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from proxy.core.energy import power_timeline as layout
from proxy.units import NS_PER_MS, NS_PER_SECOND, joules_from_mj

ENVIRONMENT_KEY: Final = "JOULEPROXY_NVML_STANDIN"
LIBRARY: Final = "libnvidia-ml.so.1"
SOURCE: Final = Path(__file__).with_name("fake_nvml.c")
DRIVER: Final = "580.00-simulated"
GPU_IS_LOST: Final = 15
GIB: Final = 1 << 30
SM_MHZ: Final = 1980


class FakeNvmlError(Exception):
    """The library cannot be built or its file cannot be written; the message has cause and remedy."""


def build(directory: Path) -> Path:
    """Compile the library into ``directory`` and return its path.

    A library built from the same source (by SHA-256) is reused. Raises :class:`FakeNvmlError` if there is no
    C compiler or if compiling fails.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    library, stamp = directory / LIBRARY, directory / f"{LIBRARY}.sha256"
    if library.exists() and stamp.exists() and stamp.read_text() == digest:
        return library
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise FakeNvmlError("no C compiler (gcc or cc): install gcc, or use the source 'simulated'")
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{LIBRARY}.{os.getpid()}"
    command = [compiler, "-O2", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-o", str(partial)]
    done = subprocess.run([*command, str(SOURCE)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FakeNvmlError(f"{compiler} failed on {SOURCE.name}: {done.stderr.strip()[:300]}")
    partial.replace(library)
    stamp.write_text(digest)
    return library


def environment(library: Path, state: Path) -> dict[str, str]:
    """Return the environment variables with which a subprocess loads ``library`` and reads ``state``."""
    paths = [str(library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
        ENVIRONMENT_KEY: str(state),
    }


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """Initial properties of one simulated GPU and of its sensors.

    ``update_ns`` 0: readings are continuous. ``average_ns`` is the window of ``GetPowerUsage`` and
    ``POWER_AVERAGE``, ``instant_ns`` that of ``POWER_INSTANT`` (an H100 sees 25 ms of every 100 ms).
    ``gain`` multiplies every reading: the board's calibration error. ``architecture`` is NVML's number
    (9 Hopper, 7 Ampere, 5 Volta). ``settable``: its limit may be lowered, as root may on a real one.
    """

    name: str = "NVIDIA H100 80GB HBM3 (simulated)"
    uuid: str = ""  # default: made from the index
    idle_watts: float = 70.0
    update_ns: int = 20 * NS_PER_MS
    phase_ns: int = 0
    average_ns: int = NS_PER_SECOND
    instant_ns: int = 0
    gain: float = 1.0
    limit_watts: float = 700.0
    settable: bool = False
    architecture: int = 9
    memory_total: int = 80 * GIB


class FakeNvml:
    """Writer of the shared file, for one process and one thread. All times are CLOCK_MONOTONIC ns.

    The times passed to ``append`` must not decrease per device; they may lie in the future or a little in the
    past. A segment that begins before a counter update that was already read becomes visible only at the
    next update; therefore write segments ahead of time (an engine has the power of its step before the step
    ends).
    Call ``close``, or use it as a context manager, to remove the file.
    """

    def __init__(self, path: Path, devices: Sequence[SimulatedDevice], start_ns: int) -> None:
        self.path = path
        self.devices = tuple(devices)
        size = layout.HEADER.size + len(self.devices) * layout.DEVICE_BYTES
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("w+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._view = memoryview(self._map)
        self._blocks = [layout.DeviceBlock(self._view, i) for i in range(len(self.devices))]
        self._last = [(start_ns, 0.0, d.idle_watts) for d in self.devices]
        for index, device in enumerate(self.devices):
            self._describe(index, device)
            self._write(index, start_ns, 0.0, device.idle_watts)
        layout.HEADER.pack_into(self._view, 0, layout.MAGIC, len(self.devices), 1, 0, 0, DRIVER.encode())
        partial.replace(path)  # atomic: readers find a complete file or none

    def append(self, device: int, t_ns: int, watts: float) -> None:
        """Set the power of ``device`` from ``t_ns`` on; raise ``ValueError`` before the last segment."""
        start_ns, energy_mj, before = self._last[device]
        if t_ns < start_ns:
            raise ValueError(f"device {device}: segment at {t_ns} before the last one at {start_ns}")
        self._write(device, t_ns, energy_mj + layout.mj_between(before, t_ns - start_ns), watts)

    def limit_watts(self, device: int) -> float:
        """Return the current power limit in watts; a client of the library may have changed it."""
        return self._blocks[device].value("limit_watts")

    def truth_joules(self, device: int, t_ns: int) -> float:
        """Return the exact joules from the start to ``t_ns``; raise ``ValueError`` if it left the ring."""
        block = self._blocks[device]
        if t_ns < block.oldest_ns():
            raise ValueError(f"device {device}: {t_ns} is older than the {layout.SEGMENTS} segments")
        return joules_from_mj(block.energy_mj(t_ns))

    def configure(self, device: int, **settings: float) -> None:
        """Change settings by the names of ``power_timeline.FIELDS`` (``call_ns``, ``error_power``...)."""
        for name in settings:
            if name not in layout.FIELDS:
                raise ValueError(f"unknown setting {name!r}; known: {', '.join(layout.FIELDS)}")
        self._begin(device)
        for name, value in settings.items():
            self._set(device, name, value)
        self._end(device)

    def reset(self, device: int, t_ns: int) -> None:
        """Restart the energy counter at 0 at ``t_ns``, as a driver reload does."""
        self.configure(device, offset_mj=self._blocks[device].energy_mj(t_ns))

    def lose(self, device: int) -> None:
        """Make every NVML call on the device fail with GPU_IS_LOST until ``restore``."""
        self.configure(device, error_all=GPU_IS_LOST)

    def restore(self, device: int) -> None:
        """End the failure that ``lose`` began."""
        self.configure(device, error_all=0)

    def processes(self, device: int, pids: Sequence[int]) -> None:
        """Set the compute processes that NVML lists on the device; ``ValueError`` for more than eight."""
        if len(pids) > layout.PROCESSES:
            raise ValueError(f"{len(pids)} processes, at most {layout.PROCESSES} fit")
        base = self._blocks[device].base + layout.PROCESS_OFFSET
        for i, pid in enumerate(pids):
            layout.PROCESS.pack_into(self._view, base + i * layout.PROCESS.size, pid, 50, GIB)
        self.configure(device, processes=len(pids))

    def close(self) -> None:
        """Remove the file; processes that have it mapped keep reading the last state."""
        self.path.unlink(missing_ok=True)
        self._blocks.clear()
        self._view.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _describe(self, index: int, device: SimulatedDevice) -> None:
        uuid = device.uuid or f"GPU-51a01a7e-0000-0000-0000-{index:012x}"
        names = (device.name.encode()[:95], uuid.encode()[:63])
        layout.NAME.pack_into(self._view, self._blocks[index].base + layout.NAME_OFFSET, *names)
        self.configure(
            index,
            update_ns=device.update_ns,
            phase_ns=device.phase_ns,
            average_ns=device.average_ns,
            instant_ns=device.instant_ns,
            gain=device.gain,
            limit_watts=device.limit_watts,
            rated_watts=device.limit_watts if device.settable else 0.0,
            architecture=device.architecture,
            memory_total=device.memory_total,
            memory_used=GIB,
            temperature=40,
            sm_mhz=SM_MHZ,
            memory_mhz=2619,
        )

    def _write(self, device: int, t_ns: int, energy_mj: float, watts: float) -> None:
        block = self._blocks[device]
        count = int(block.value("segments"))
        at = block.base + layout.SEGMENT_OFFSET + count % layout.SEGMENTS * layout.SEGMENT.size
        self._begin(device)
        layout.SEGMENT.pack_into(self._view, at, t_ns, energy_mj, watts)
        self._set(device, "segments", count + 1)
        self._end(device)
        self._last[device] = (t_ns, energy_mj, watts)

    def _begin(self, device: int) -> None:
        """Begin a write: an odd sequence number makes readers retry (a seqlock)."""
        self._set(device, "sequence", int(self._blocks[device].value("sequence")) + 1)

    def _end(self, device: int) -> None:
        self._set(device, "sequence", int(self._blocks[device].value("sequence")) + 1)

    def _set(self, device: int, name: str, value: float) -> None:
        offset, packer = layout.OFFSETS[name]
        packer.pack_into(self._view, self._blocks[device].base + offset, value)
