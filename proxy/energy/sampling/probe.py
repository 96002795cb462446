"""Measure a source at start by fast polling: update period of each counter, duration of a call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.core.events import Sample
from proxy.energy.sampling.edges import EdgeTracker, measure_period
from proxy.energy.source import EdgeSource
from proxy.units import NS_PER_MS, seconds_from_ns

_POLL_NS: Final = NS_PER_MS
_MEASURE_NS: Final = 450 * NS_PER_MS  # at least four updates of a counter with the longest period, 100 ms
_CLOSE_NS: Final = 3 * NS_PER_MS  # polls further apart do not locate a change
_SLOW_CALL_NS: Final = 5 * NS_PER_MS  # slower calls cannot locate an edge
_SLOW_CALLS: Final = 3  # fewer slow calls, or less than one in _SLOW_SHARE, may be caused by the scheduler
_SLOW_SHARE: Final = 5


@dataclass(slots=True)
class Probe:
    """Result of the fast polling of one counter.

    Attributes:
        last: The last reading.
        changes: Times of the observed changes, nanoseconds.
        latencies: Durations of the calls, nanoseconds.
        slow: Calls that failed or were too slow to locate an edge.
    """

    last: Sample
    changes: list[int] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)
    slow: int = 0

    def add_poll(self, sample: Sample | None, latency_ns: int) -> None:
        """Add a poll: its reading (None if it failed) and the duration of the call."""
        self.latencies.append(latency_ns)
        self.slow += sample is None or latency_ns > _SLOW_CALL_NS
        if sample is None:
            return
        in_time = sample.t_ns - self.last.t_ns < _CLOSE_NS  # otherwise the time of the change is uncertain
        if sample.energy_mj != self.last.energy_mj and in_time:
            self.changes.append((sample.t_ns + self.last.t_ns) // 2)
        self.last = sample

    @property
    def usable(self) -> bool:
        """Whether the calls are fast enough to continue polling."""
        return self.slow < _SLOW_CALLS or self.slow * _SLOW_SHARE < len(self.latencies)

    @property
    def latency_s(self) -> float | None:
        """Median call latency, seconds."""
        calls = sorted(self.latencies)
        return seconds_from_ns(calls[len(calls) // 2]) if calls else None

    def tracker(self) -> EdgeTracker | None:
        """Return a tracker of the edges; None if no regular edges were found."""
        period = measure_period(self.changes, len(self.latencies)) if self.usable else None
        if period is None:
            return None
        first, last = self.changes[0], self.changes[-1]
        return EdgeTracker(period, last, base_ns=first, base_periods=round((last - first) / period))


def probe(
    source: EdgeSource, devices: Sequence[str], clock: Callable[[], int], wait: Callable[[int], bool]
) -> dict[str, Probe]:
    """Poll counters every millisecond for 0.45 s.

    Args:
        source: The open source.
        devices: Ids of the devices to poll.
        clock: Monotonic clock in nanoseconds.
        wait: Waits until a time and returns True to stop early.

    Returns:
        The results by device; devices that could not be read at first are left out.
    """
    first = ((device, source.peek(device)) for device in devices)
    probes = {device: Probe(sample) for device, sample in first if sample is not None}
    end = clock() + _MEASURE_NS
    while (now := clock()) < end and any(p.usable for p in probes.values()):
        if wait(now + _POLL_NS):
            break
        for device, seen in probes.items():
            if seen.usable:
                started = clock()
                seen.add_poll(source.peek(device), clock() - started)
    return probes
