"""The sampler: one thread that reads a source at absolute deadlines and hands over what it read.

Deadlines are ``start + k * interval``: a slow call delays one tick and skips those it ran over, counted,
and never shifts the rest. Where all devices have energy counters, a tick waits for the counter's next
own edge and polls closely around it, so that a sample's stamp is the edge's.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from proxy.clock import now_ns
from proxy.core.events import Sample
from proxy.energy.edges import EdgeTracker, measure_period
from proxy.energy.meter import EdgeSource, SensorError, Source
from proxy.units import NS_PER_MS, NS_PER_SECOND, seconds_from_ns

_LOG = logging.getLogger(__name__)
_POLL_NS: Final = NS_PER_MS // 4
_MEASURE_POLL_NS: Final = NS_PER_MS
_MEASURE_NS: Final = 450 * NS_PER_MS
_SLOW_CALL_NS: Final = 5 * NS_PER_MS  # slower calls cannot find an edge: plain ticks
_SLOW_CALLS: Final = 3  # once may be the scheduler's doing

Callback = Callable[[list[Sample]], None]


@dataclass(frozen=True, slots=True)
class SamplerStats:
    """What the sampler did so far. Latency is that of one reading of all devices, in seconds."""

    ticks: int = 0
    skipped: int = 0
    failures: int = 0
    update_period_s: float | None = None
    latency_s: float | None = None
    latency_max_s: float = 0.0


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
        self._interval_ns = round(NS_PER_SECOND / hz)
        self._clock = clock
        self._wait = wait or self._wait_real
        self._stop = threading.Event()
        self._edges: EdgeTracker | None = None
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
            stopped = self._measure()
            target = self._clock()
            while not stopped:
                target = self._next(target)
                stopped = self._tick(target)
        finally:
            self._source.close()

    def _next(self, target_ns: int) -> int:
        """The next deadline after ``target_ns`` that has not passed; those that have are skipped."""
        interval = self._interval_ns
        if self._edges is not None:
            interval = max(interval, self._edges.period_ns)
        late = max(0, self._clock() - target_ns - interval) // interval
        if late:
            self.stats = replace(self.stats, skipped=self.stats.skipped + late)
        return target_ns + (late + 1) * interval

    def _tick(self, target_ns: int) -> bool:
        """Read at the deadline, or at the counter's next edge; True when told to stop."""
        edges = self._edges
        if edges is None:
            stopped = self._wait(target_ns)
            samples = [] if stopped else self._read()
        else:
            due = edges.due(target_ns)
            stopped = self._wait(due - edges.guard_ns)
            samples = [] if stopped else self._read_at_edge(edges, due)
        if not stopped:
            self.stats = replace(self.stats, ticks=self.stats.ticks + 1)
            self._emit(samples)
        return stopped

    def _read_at_edge(self, edges: EdgeTracker, due_ns: int) -> list[Sample]:
        """Poll one counter closely until it steps or the window around ``due_ns`` ends; then read all."""
        before = self._peek()
        while before is not None and self._clock() < due_ns + edges.guard_ns:
            if self._wait(self._clock() + _POLL_NS):
                break
            now = self._peek()
            if now is None:
                break
            if now.energy_mj != before.energy_mj:
                edges.hit(before.t_ns, now.t_ns)
                return self._read()
            before = now
        edges.missed()
        return self._read()

    def _measure(self) -> bool:
        """Poll fast for a while to find the counter's update period; True when told to stop."""
        end, polls, slow, last = self._clock() + _MEASURE_NS, 0, 0, self._peek()
        changes: list[int] = []
        while last is not None and (now := self._clock()) < end:
            if self._wait(now + _MEASURE_POLL_NS):
                return True
            started = self._clock()
            sample = self._peek()
            slow += self._clock() - started > _SLOW_CALL_NS
            if sample is None or slow >= _SLOW_CALLS:
                return False
            polls += 1
            if sample.energy_mj != last.energy_mj:
                changes.append(sample.t_ns)
            last = sample
        period = measure_period(changes, polls)
        if period is not None:
            self._edges = EdgeTracker(period, changes[-1])
            self.stats = replace(self.stats, update_period_s=seconds_from_ns(period))
        return False

    def _peek(self) -> Sample | None:
        return None if self._peeked is None else self._peeked.peek()

    def _read(self) -> list[Sample]:
        """One reading of the source; a failure is counted and logged, and yields nothing."""
        started = self._clock()
        try:
            samples = self._source.read()
        except SensorError as error:
            self.stats = replace(self.stats, failures=self.stats.failures + 1)
            if self.stats.failures == 1:
                _LOG.warning("%s failed: %s (further failures are counted)", self._source.name, error)
            return []
        latency = seconds_from_ns(self._clock() - started)
        longest = max(latency, self.stats.latency_max_s)
        self.stats = replace(self.stats, latency_s=latency, latency_max_s=longest)
        return samples

    def _emit(self, samples: list[Sample]) -> None:
        if samples:
            self._on_samples(samples)

    def _wait_real(self, deadline_ns: int) -> bool:
        return self._stop.wait(max(0.0, seconds_from_ns(deadline_ns - self._clock())))
