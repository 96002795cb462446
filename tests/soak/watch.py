"""Resources of processes: resident memory once a second, descriptors, and leaks at the end."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@dataclass(slots=True)
class Memory:
    """Samples of one process: (seconds, MB)."""

    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)

    async def watch(self) -> None:
        """Once a second, until cancelled or the process is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.samples.append((loop.time(), resident_mb(self.pid)))
            except (FileNotFoundError, ProcessLookupError):
                return
            await asyncio.sleep(1.0)

    @property
    def settled(self) -> list[tuple[float, float]]:
        """The samples of the last two thirds: pools and caches are filled by then."""
        return self.samples[len(self.samples) // 3 :]

    @property
    def slope_mb_per_minute(self) -> float:
        """Of a straight line through the settled samples, by least squares."""
        times, sizes = zip(*self.settled, strict=True)
        middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
        spread = sum((t - middle) ** 2 for t in times)
        return 60 * sum((t - middle) * (s - mean) for t, s in self.settled) / spread if spread else 0.0
