"""The sampler: one thread that reads a source at absolute deadlines and passes the readings on.

Deadlines are ``start + k * interval``. A slow call delays its own reading; deadlines that have passed
meanwhile are skipped and counted, and the following ones are not shifted: relative sleeps would drift.

A counter advances only every 20 to 100 ms and is exact only at these updates (edges). So counters are read at
moments far from all expected edges, where it is certain which update a reading shows, and the reading gets
the time of that update. The edges drift; twice a second one of the counters is therefore polled closely
around its next expected edge, and the model of its edges is corrected
(:class:`~proxy.energy.sampling.edges.EdgeTracker`).
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
_POLL_NS: Final = NS_PER_MS // 4  # between two polls around an expected edge
_BRIEF_NS: Final = 2 * NS_PER_MS  # shorter waits use sleep instead of the stop event
_TRACK_NS: Final = 500 * NS_PER_MS  # time between two checks of an edge,
_EAGER_NS: Final = 4 * NS_PER_SECOND  # but every tick at first, until all edges are known well
_PATIENCE_NS: Final = NS_PER_SECOND // 4  # after so long a reading is used although its edge is uncertain

Callback = Callable[[list[Sample]], None]


@dataclass(slots=True)
class SamplerStats:
    """Statistics of a sampler; written by its thread only.

    Attributes:
        ticks: Readings so far.
        skipped: Deadlines that passed during a slow call.
        failures: Readings that failed.
        update_period_s: The longest update period of a counter, seconds.
        latency_s: Duration of the last reading of all devices, seconds.
        latency_max_s: The longest such duration.
        periods_s: Update period of each counter, by device.
    """

    ticks: int = 0
    skipped: int = 0
    failures: int = 0
    update_period_s: float | None = None
    latency_s: float | None = None
    latency_max_s: float = 0.0
    periods_s: dict[str, float] = field(default_factory=dict)


class Sampler:
    """Reads an open source in a thread of its own; it closes the source when it stops.

    Args:
        source: The open source.
        on_samples: Receives new readings in the sampler's thread; must not block.
        hz: Readings per second, unless the source limits them.
        clock: Monotonic clock in nanoseconds.
        wait: Waits until a time and returns True if the sampler must stop; tests replace it with ``clock``.
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
        self._edge_source = source if isinstance(source, EdgeSource) else None
        self._on_samples = on_samples
        self._interval_ns = max(round(NS_PER_SECOND / hz), ns_from_seconds(source.interval_s or 0.0))
        self._clock = clock
        self._wait = wait or self._wait_real
        self._stop = threading.Event()
        self._trackers: dict[str, EdgeTracker] = {}
        self._last: dict[str, Sample] = {}
        self._measure_at: dict[str, int] = {}  # when to measure a counter without known edges again
        self._backoff: dict[str, int] = {}  # doubled each time: some counters have no regular edges
        self._failing = False
        self._track_ns = 0
        self._eager_until_ns = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, which reads until ``stop``."""
        self._thread = threading.Thread(target=self.run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Stop the thread and wait for it; returns False if a call to the driver still hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def run(self) -> None:
        """Read until ``stop``, then close the source. The body of the thread."""
        try:
            self._emit(self._read())
            if self._edge_source is not None:
                self._measure(self._edge_source, self._edge_source.counters())
            self._eager_until_ns = self._clock() + _EAGER_NS
            target = self._clock()
            while True:
                target = self._next(target)
                moment = clear_moment(self._trackers.values(), target) if self._trackers else target
                if self._wait(moment):
                    break
                self.stats.ticks += 1
                self._emit([s for sample in self._read() if (s := self._at_edge(sample)) is not None])
                self._track_edges()
        finally:
            self._source.close()

    def _next(self, target_ns: int) -> int:
        """Return the next deadline after ``target_ns``; those that have passed are skipped and counted."""
        interval = self._interval_ns
        if self._trackers:
            interval = max(interval, *(tracker.period_ns for tracker in self._trackers.values()))
        late = max(0, self._clock() - target_ns - interval) // interval
        self.stats.skipped += late
        return target_ns + (late + 1) * interval

    def _at_edge(self, sample: Sample) -> Sample | None:
        """Return a reading with the time of the counter update that it shows.

        Unchanged if the edges of the counter are not known. None if the reading is too close to an edge, or
        shows an update that was reported already: the next reading includes its energy.
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

    def _track_edges(self) -> None:
        """If it is due, observe the next edge of the counter that was not observed for the longest time."""
        now = self._clock()
        if self._edge_source is None or now < self._track_ns:
            return
        for device in [d for d, due in self._measure_at.items() if due <= now]:
            del self._measure_at[device]
            self._measure(self._edge_source, (device,))
        if not self._trackers:
            return
        if now > self._eager_until_ns or all(t.sure for t in self._trackers.values()):
            self._track_ns = now + _TRACK_NS
        device = next(iter(self._trackers))
        tracker = self._trackers[device] = self._trackers.pop(device)  # move to the end of the queue
        if tracker.lost:
            del self._trackers[device]
            self._measure_later(device)
        else:
            self._observe_edge(self._edge_source, device, tracker)

    def _observe_edge(self, source: EdgeSource, device: str, tracker: EdgeTracker) -> None:
        """Poll one counter from before its next expected edge until it advances or should have."""
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
        if in_time:  # otherwise this thread woke too late, which is no information about the counter
            tracker.missed()

    def _measure(self, source: EdgeSource, devices: tuple[str, ...]) -> None:
        """Measure the update periods of counters, which takes about half a second."""
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
        wait = self._backoff[device] = 2 * self._backoff.get(device, NS_PER_SECOND // 4)
        self._measure_at[device] = self._clock() + wait

    def _read(self) -> list[Sample]:
        """Read the source; a failure is counted and returns nothing, its start and end are logged.

        Any exception is caught: it would end the thread, and the devices would never be read again.
        """
        started = self._clock()
        try:
            samples = self._source.read()
        except Exception as error:  # noqa: BLE001 - see above
            self.stats.failures += 1
            if not self._failing:
                unforeseen = not isinstance(error, SensorError)
                _LOG.warning(
                    "%s failed: %r (further failures are counted, not logged)",
                    self._source.name,
                    error,
                    exc_info=unforeseen,
                )
            self._failing = True
            return []
        if self._failing:
            self._failing = False
            _LOG.warning("%s can be read again", self._source.name)
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
        sleep(max(0.0, seconds_from_ns(left_ns)))  # costs a third of waiting for an event
        return self._stop.is_set()
