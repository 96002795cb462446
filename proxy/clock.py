# Compiled by mypyc: see setup.py.
"""The only clock: monotonic nanoseconds, and one wall-clock anchor for export.

``CLOCK_MONOTONIC`` is one clock for all processes of a host, so stamps of relay workers and of the
meter may be compared. Stamps of two hosts may not.
"""

import time
from dataclasses import dataclass
from typing import Final

now_ns: Final = time.monotonic_ns  # nanoseconds of the host's monotonic clock


@dataclass(frozen=True, slots=True)
class WallAnchor:
    """One pair of simultaneous readings, by which monotonic stamps become Unix time.

    Taken once per process: wall-clock steps (NTP) afterwards never bend an interval.
    """

    monotonic_ns: int
    unix_ns: int

    @classmethod
    def take(cls) -> "WallAnchor":
        """Read both clocks now."""
        return cls(time.monotonic_ns(), time.time_ns())

    def unix(self, monotonic_ns: int) -> int:
        """Unix nanoseconds of a monotonic stamp."""
        return self.unix_ns + monotonic_ns - self.monotonic_ns
