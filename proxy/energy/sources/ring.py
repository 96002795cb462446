"""The driver's ring buffer of power samples (``nvmlDeviceGetSamples``) as readings, none twice. Pure.

Its stamps are Unix microseconds of this host, taken by the driver; they become monotonic by a pair of
simultaneous readings of both clocks. Equal powers are kept: only equal stamps are the same sample.
"""

from collections.abc import Iterable

from proxy.clock import WallAnchor
from proxy.core.events import Sample

_NS_PER_US = 1_000


class PowerRing:
    """Which samples of one device's ring were taken already."""

    __slots__ = ("last_us",)

    def __init__(self) -> None:
        self.last_us = 0

    def take(
        self, device: str, source: str, points: Iterable[tuple[int, float]], anchor: WallAnchor
    ) -> list[Sample]:
        """Samples of ``(unix microseconds, milliwatts)`` newer than the last ones taken, oldest first."""
        new = sorted((t, p) for t, p in points if t > self.last_us)
        if new:
            self.last_us = new[-1][0]
        return [
            Sample(t * _NS_PER_US - anchor.unix_ns + anchor.monotonic_ns, device, power_mw=p, source=source)
            for t, p in new
        ]
