# Compiled by mypyc: see setup.py.
"""The only clock: monotonic nanoseconds, and one wall-clock anchor for export.

``CLOCK_MONOTONIC`` is the same clock for all processes of a host, so that stamps of relay workers and of the
meter can be compared. Stamps of two hosts cannot.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

now_ns: Final = time.monotonic_ns  # nanoseconds of the host's monotonic clock
_ANCHOR_TRIES: Final = 5  # readings of a pair of clocks: each takes 0.2 us, so that one is undisturbed


@dataclass(frozen=True, slots=True)
class WallAnchor:
    """A pair of simultaneous readings that converts monotonic stamps to Unix time.

    Created once per process, so that later steps of the wall clock (NTP) never change an interval.
    """

    monotonic_ns: int
    unix_ns: int

    @classmethod
    def take(cls) -> "WallAnchor":
        """Read both clocks now.

        A thread that is off the CPU between the two readings would shift the anchor by that time. The wall
        clock is therefore read between two readings of the monotonic clock, a few times; the closest pair is
        used, and its middle is the monotonic stamp.
        """
        return cls.closest([(now_ns(), time.time_ns(), now_ns()) for _ in range(_ANCHOR_TRIES)])

    @classmethod
    def closest(cls, readings: Sequence[tuple[int, int, int]]) -> "WallAnchor":
        """Return the anchor of the quickest of ``readings``: monotonic before, Unix time, monotonic after."""
        before_ns, unix_ns, after_ns = min(readings, key=lambda reading: reading[2] - reading[0])
        return cls((before_ns + after_ns) // 2, unix_ns)

    def unix(self, monotonic_ns: int) -> int:
        """Return the Unix nanoseconds of a monotonic stamp."""
        return self.unix_ns + monotonic_ns - self.monotonic_ns
