"""The sampler: one thread that reads a source at absolute deadlines and hands over what it read.

Deadlines are ``start + k * interval``: a slow call delays one tick and skips those it ran over, counted,
and never shifts the rest. Counters are read away from their own update edges, and a reading takes the
stamp of the edge it shows; now and then one counter is polled closely to see where its edges are.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import sleep
from typing import Final

import msgspec

from proxy.clock import now_ns
from proxy.core.events import Sample
from proxy.energy.sampling.edges import MAX_GUARD_NS, EdgeTracker, clear_moment
from proxy.energy.sampling.probe import probe
from proxy.energy.source import EdgeSource, SensorError, Source
from proxy.units import NS_PER_MS, NS_PER_SECOND, ns_from_seconds, seconds_from_ns

_LOG = logging.getLogger(__name__)
_POLL_NS: Final = NS_PER_MS // 4
_BRIEF_NS: Final = 2 * NS_PER_MS
_FOLLOW_NS: Final = 500 * NS_PER_MS  # how often the edges of one of the counters are looked at;
_PATIENCE_NS: Final = NS_PER_SECOND // 4
_EAGER_NS: Final = 4 * NS_PER_SECOND  # at first at each tick, until all edges are known well

Callback = Callable[[list[Sample]], None]


@dataclass(slots=True)
class SamplerStats:
    """What the sampler did so far; only its thread writes it.

    Latency is that of one reading of all devices, in seconds.

    ``periods_s`` are the counters' update periods by device, ``update_period_s`` the longest of them.
    """

    ticks: int = 0
    skipped: int = 0
    failures: int = 0
    update_period_s: float | None = None
    latency_s: float | None = None
    latency_max_s: float = 0.0
    periods_s: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Drives an opened :class:`Source`; ``on_samples`` is called in this thread, and must not block.

    ``wait(deadline_ns)`` returns True when the sampler shall stop; tests inject it with ``clock``.
    """

    def __init__(
        self,
        source: Source,
        on_samples: Callback,
        hz: float = 20.0,
        *,
        clock: Callable[[], int] = now_ns,
        wait: Callable[[int], bool] | None = None,
    ) -> None:
        self.stats = SamplerStats()
        self._source = source
        self._peeked = source if isinstance(source, EdgeSource) else None
        self._on_samples = on_samples
        self._interval_ns = max(round(NS_PER_SECOND / hz), ns_from_seconds(source.interval_s or 0.0))
        self._clock = clock
        self._wait = wait or self._wait_real
        self._stop = threading.Event()
        self._trackers: dict[str, EdgeTracker] = {}
        self._last: dict[str, Sample] = {}
        self._again: dict[str, int] = {}  # when to measure a counter whose edges were lost,
        self._patience: dict[str, int] = {}  # less often each time: some have no regular edges
        self._failing = False
        self._follow_ns = 0
        self._eager_until_ns = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; it reads until ``stop``."""
        self._thread = threading.Thread(target=self.run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ask the thread to end and wait; False when a call to the driver still hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def run(self) -> None:
        """Read until told to stop; closes the source."""
        try:
            self._emit(self._read())
            if self._peeked is not None:
                self._measure(self._peeked, self._peeked.counters())
            self._eager_until_ns = self._clock() + _EAGER_NS
            target = self._clock()
            while True:
                target = self._next(target)
                moment = clear_moment(self._trackers.values(), target) if self._trackers else target
                if self._wait(moment):
                    break
                self.stats.ticks += 1
                self._emit([s for sample in self._read() if (s := self._at_edge(sample)) is not None])
                self._follow()
        finally:
            self._source.close()

    def _next(self, target_ns: int) -> int:
        """The next deadline after ``target_ns`` that has not passed; those that have are skipped."""
        interval = self._interval_ns
        if self._trackers:
            interval = max(interval, *(tracker.period_ns for tracker in self._trackers.values()))
        late = max(0, self._clock() - target_ns - interval) // interval
        self.stats.skipped += late
        return target_ns + (late + 1) * interval

    def _at_edge(self, sample: Sample) -> Sample | None:
        """The reading at the stamp of the edge it shows; as it is where its counter's edges are not known.

        None where it is too close to an edge, or shows one that is known: the next reading has it all.
        """
        tracker = self._trackers.get(sample.device)
        last = self._last.get(sample.device)
        if tracker is not None and not tracker.doubtful:
            edge = tracker.last(sample.t_ns)
            if tracker.is_clear(sample.t_ns) and (last is None or edge > last.t_ns):
                sample = msgspec.structs.replace(sample, t_ns=edge)
            elif last is not None and sample.t_ns - last.t_ns < _PATIENCE_NS:
                return None
        self._last[sample.device] = sample
        return sample

    def _follow(self) -> None:
        """When it is time: look closely at the next edge of the counter not looked at for longest."""
        now = self._clock()
        if self._peeked is None or now < self._follow_ns:
            return
        for device in [d for d, due in self._again.items() if due <= now]:
            del self._again[device]
            self._measure(self._peeked, (device,))
        if not self._trackers:
            return
        if now > self._eager_until_ns or all(t.sure for t in self._trackers.values()):
            self._follow_ns = now + _FOLLOW_NS
        device = next(iter(self._trackers))
        tracker = self._trackers[device] = self._trackers.pop(device)  # to the end of the queue
        if tracker.lost:
            del self._trackers[device]
            self._measure_later(device)
        else:
            self._look(self._peeked, device, tracker)

    def _look(self, source: EdgeSource, device: str, tracker: EdgeTracker) -> None:
        """Poll one counter from before its next edge until it steps or should have."""
        t_ns = self._clock()
        margin = min(tracker.margin(t_ns), tracker.period_ns // 2, MAX_GUARD_NS)
        due = tracker.due(t_ns + margin)
        if self._wait(due - margin):
            return
        before = source.peek(device)
        in_time = before is not None and before.t_ns < due
        while before is not None and self._clock() < due + margin:
            if self._wait(self._clock() + _POLL_NS):
                return
            now = source.peek(device)
            if now is not None and now.energy_mj != before.energy_mj:
                tracker.hit(before.t_ns, now.t_ns)
                return
            before = now
        if in_time:  # else this thread slept too long, which says nothing of the counter
            tracker.missed()

    def _measure(self, source: EdgeSource, devices: tuple[str, ...]) -> None:
        """Find the update periods of counters."""
        periods = self.stats.periods_s
        for device, seen in probe(source, devices, self._clock, self._wait).items():
            tracker = seen.tracker()
            if tracker is not None:
                self._trackers[device] = tracker
                periods[device] = seconds_from_ns(tracker.period_ns)
            elif seen.usable:
                self._measure_later(device)
        self.stats.update_period_s = max(periods.values(), default=None)

    def _measure_later(self, device: str) -> None:
        wait = self._patience[device] = 2 * self._patience.get(device, NS_PER_SECOND // 4)
        self._again[device] = self._clock() + wait

    def _read(self) -> list[Sample]:
        """One reading of the source; a failure is counted, its beginning and end logged, and yields nothing.

        Whatever it is that failed: a thread that ended would be a sensor that is silent for ever.
        """
        started = self._clock()
        try:
            samples = self._source.read()
        except Exception as error:  # noqa: BLE001 - see above
            self.stats.failures += 1
            if not self._failing:
                unforeseen = not isinstance(error, SensorError)
                _LOG.warning(
                    "%s failed: %r (further failures are counted)",
                    self._source.name,
                    error,
                    exc_info=unforeseen,
                )
            self._failing = True
            return []
        if self._failing:
            self._failing = False
            _LOG.warning("%s answers again", self._source.name)
        self.stats.latency_s = latency = seconds_from_ns(self._clock() - started)
        self.stats.latency_max_s = max(latency, self.stats.latency_max_s)
        return samples

    def _emit(self, samples: list[Sample]) -> None:
        if samples:
            self._on_samples(samples)

    def _wait_real(self, deadline_ns: int) -> bool:
        left_ns = deadline_ns - self._clock()
        if left_ns > _BRIEF_NS:
            return self._stop.wait(seconds_from_ns(left_ns))
        sleep(max(0.0, seconds_from_ns(left_ns)))  # a third of the cost of waiting on an event
        return self._stop.is_set()
