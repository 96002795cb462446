"""Measuring a source at start: each counter's update period, and how long a call takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.core.events import Sample
from proxy.energy.sampling.edges import EdgeTracker, measure_period
from proxy.energy.source import EdgeSource
from proxy.units import NS_PER_MS, seconds_from_ns

_POLL_NS: Final = NS_PER_MS
_MEASURE_NS: Final = 450 * NS_PER_MS
_CLOSE_NS: Final = 3 * NS_PER_MS
_SLOW_CALL_NS: Final = 5 * NS_PER_MS  # slower calls cannot find an edge
_SLOW_CALLS: Final = 3  # once may be the scheduler's doing,
_SLOW_SHARE: Final = 5  # and so may be less than a fifth of them


@dataclass(slots=True)
class Probe:
    """What fast polling of one counter showed. Slow: its calls take too long to look for edges."""

    last: Sample
    changes: list[int] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)
    slow: int = 0  # or failed

    def take(self, sample: Sample | None, latency_ns: int) -> None:
        """One more poll."""
        self.latencies.append(latency_ns)
        self.slow += sample is None or latency_ns > _SLOW_CALL_NS
        if sample is None:
            return
        in_time = sample.t_ns - self.last.t_ns < _CLOSE_NS  # else it says little of when
        if sample.energy_mj != self.last.energy_mj and in_time:
            self.changes.append((sample.t_ns + self.last.t_ns) // 2)
        self.last = sample

    @property
    def usable(self) -> bool:
        """Whether polling on makes sense."""
        return self.slow < _SLOW_CALLS or self.slow * _SLOW_SHARE < len(self.latencies)

    @property
    def latency_s(self) -> float | None:
        """Median call latency, seconds."""
        calls = sorted(self.latencies)
        return seconds_from_ns(calls[len(calls) // 2]) if calls else None

    def tracker(self) -> EdgeTracker | None:
        """What follows the edges from here on; None where none were found."""
        period = measure_period(self.changes, len(self.latencies)) if self.usable else None
        if period is None:
            return None
        first, last = self.changes[0], self.changes[-1]
        return EdgeTracker(period, last, base_ns=first, base_periods=round((last - first) / period))


def probe(
    source: EdgeSource, devices: Sequence[str], clock: Callable[[], int], wait: Callable[[int], bool]
) -> dict[str, Probe]:
    """Poll the counters of ``devices`` each millisecond for 0.45 s; ``wait`` as of the sampler."""
    first = ((device, source.peek(device)) for device in devices)
    probes = {device: Probe(sample) for device, sample in first if sample is not None}
    end = clock() + _MEASURE_NS
    while (now := clock()) < end and any(p.usable for p in probes.values()):
        if wait(now + _POLL_NS):
            break
        for device, seen in probes.items():
            if seen.usable:
                started = clock()
                seen.take(source.peek(device), clock() - started)
    return probes
