"""Readings from the driver's ring buffer of power samples (``nvmlDeviceGetSamples``), each once. Pure.

The driver stamps its samples in Unix microseconds of this host. They are converted to the monotonic clock by
a pair of simultaneous readings of both clocks. Samples are identified by their stamps; equal values are kept,
because dropping them would lose constant loads.
"""

from collections.abc import Iterable

from proxy.clock import WallAnchor
from proxy.core.events import Sample

_NS_PER_US = 1_000


class PowerRing:
    """Position in the ring buffer of one device; ``last_us`` is the stamp of its newest sample returned."""

    __slots__ = ("last_us",)

    def __init__(self) -> None:
        self.last_us = 0

    def new_samples(
        self, device: str, source: str, points: Iterable[tuple[int, float]], anchor: WallAnchor
    ) -> list[Sample]:
        """Return the samples that are newer than those returned before, oldest first.

        Args:
            device: Id of the device.
            source: Name of the source.
            points: Pairs (Unix microseconds, milliwatts) of the driver, in any order.
            anchor: Simultaneous readings of the wall clock and the monotonic clock.
        """
        new = sorted((t, p) for t, p in points if t > self.last_us)
        if new:
            self.last_us = new[-1][0]
        return [
            Sample(t * _NS_PER_US - anchor.unix_ns + anchor.monotonic_ns, device, power_mw=p, source=source)
            for t, p in new
        ]
