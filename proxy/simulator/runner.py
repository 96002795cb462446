"""The engine in real time: steps at absolute deadlines, their power on the simulated GPU."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.clock import now_ns
from proxy.simulator.engine import Engine, Plan
from proxy.simulator.job import Job
from proxy.simulator.metrics import Metrics
from proxy.simulator.profile import Profile
from proxy.units import NS_PER_MS, ns_from_seconds, seconds_from_ns

# A segment is written a little before it begins: one that began before a reading of the counter would make
# the counter step back.
LEAD_NS: Final = 100_000
# Further behind than this (a machine too busy to simulate in real time) the schedule starts anew: catching up
# would be a burst that no GPU shows.
BEHIND_NS: Final = 20 * NS_PER_MS

Draw = Callable[[int, float], None]  # from t_ns on the devices draw so many watts together
Sink = Callable[[bool | None], None]  # True: a token came, False: the last one, None: the engine has failed
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """A job whose tokens someone waits for; stamps of the monotonic clock, None: not yet."""

    job: Job
    sink: Sink
    arrived_ns: int
    scheduled_ns: int | None = None
    first_ns: int | None = None


class Runner:
    """Runs steps while there are requests; each job's sink is told of its tokens.

    A step is charged with the energy it really drew, power times the time until the next one began: what the
    counter shows and what the requests are charged add up exactly. Step n ends when the profile says, counted
    from the last idle time, however late this program ran.
    """

    def __init__(self, profile: Profile, draw: Draw) -> None:
        self.engine = Engine(profile)
        self.metrics = Metrics(profile.model)
        self.busy_joules = 0.0
        self.late_seconds = 0.0  # by which the schedule was started anew
        self.failed = False
        self._idle_joules = 0.0
        self._idle_since: int | None = None
        self._idle_watts = profile.idle_watts
        self._draw = draw
        self._arrived = asyncio.Event()
        self._outputs: dict[str, _Waiting] = {}

    def idle_joules(self, t_ns: int) -> float:
        """Joules drawn while there was no request, up to a time not before the last step."""
        if self._idle_since is None:
            return self._idle_joules
        return self._idle_joules + self._idle_watts * seconds_from_ns(t_ns - self._idle_since)

    def submit(self, job: Job, sink: Sink) -> None:
        """Queue a job that the engine does not refuse."""
        if self.failed:
            sink(None)
        self._outputs[job.name] = _Waiting(job, sink, now_ns())
        self.engine.submit(job)
        self._arrived.set()

    def leave(self, job: Job) -> None:
        """The client of a job has gone, or has all it wanted."""
        if self._outputs.pop(job.name, None) is not None and not job.done:
            self.engine.cancel(job)
            self.metrics.success["abort"] += 1

    async def run(self) -> None:
        """Until cancelled. What else ends it is logged, and ends every answer."""
        try:
            await self._run()
        except Exception:
            log.exception("the simulated engine failed")
            self.failed = True
            for waiting in self._outputs.values():
                waiting.sink(None)

    async def _run(self) -> None:
        while True:
            start = await self._rest()
            deadline = start
            while (step := self.engine.plan()) is not None:
                seconds, joules = step.seconds[0], step.joules[0]
                watts = joules / seconds
                self._draw(start, watts)
                deadline += ns_from_seconds(seconds)
                await asyncio.sleep(max(seconds_from_ns(deadline - LEAD_NS - now_ns()), 0.0))
                now = now_ns() + LEAD_NS
                if now - deadline > BEHIND_NS:
                    self.late_seconds += seconds_from_ns(now - deadline)
                    deadline = now
                end = max(deadline, now)
                drawn = watts * seconds_from_ns(end - start)
                self.busy_joules += drawn
                self._finish(step, start, end, drawn / joules)
                start = end
            self._idle_since = start

    async def _rest(self) -> int:
        """Idle until there is a request; when its first step begins."""
        if self._idle_since is None:
            self._idle_since = now_ns() + LEAD_NS
        self._draw(self._idle_since, self._idle_watts)
        while self.engine.idle:
            self._arrived.clear()
            await self._arrived.wait()
        start = max(now_ns() + LEAD_NS, self._idle_since)
        self._idle_joules += self._idle_watts * seconds_from_ns(start - self._idle_since)
        self._idle_since = None
        return start

    def _finish(self, step: Plan, start_ns: int, end_ns: int, scale: float) -> None:
        """Charge a step, tell the sinks, count."""
        for job, _ in step.prefill:
            if (waiting := self._outputs.get(job.name)) is not None and waiting.scheduled_ns is None:
                self._scheduled(waiting, start_ns)
        decoding = list(self.engine.decoding())
        finished = self.engine.finish(step, scale)
        prompt = sum(chunk for _, chunk in step.prefill)
        self.metrics.observe("iteration_tokens_total", len(decoding) + prompt)
        self.metrics.observe("inter_token_latency_seconds", seconds_from_ns(end_ns - start_ns), len(decoding))
        for job in (*decoding, *finished.prompts):
            if (waiting := self._outputs.get(job.name)) is not None:
                if waiting.first_ns is None:
                    self._first(waiting, end_ns)
                waiting.sink(not job.done)
        for job in finished.done:
            if (waiting := self._outputs.get(job.name)) is not None:
                self._ended(waiting, end_ns)

    def _scheduled(self, waiting: _Waiting, t_ns: int) -> None:
        waiting.scheduled_ns = t_ns
        self.metrics.queried_tokens += waiting.job.prompt_tokens
        self.metrics.cached_tokens += waiting.job.cached_tokens
        self.metrics.observe("request_queue_time_seconds", seconds_from_ns(t_ns - waiting.arrived_ns))

    def _first(self, waiting: _Waiting, t_ns: int) -> None:
        waiting.first_ns = t_ns
        self.metrics.observe("time_to_first_token_seconds", seconds_from_ns(t_ns - waiting.arrived_ns))
        scheduled_ns = waiting.scheduled_ns or t_ns
        self.metrics.observe("request_prefill_time_seconds", seconds_from_ns(t_ns - scheduled_ns))

    def _ended(self, waiting: _Waiting, t_ns: int) -> None:
        job, first_ns = waiting.job, waiting.first_ns or t_ns
        self.metrics.success["length"] += 1
        self.metrics.observe("request_decode_time_seconds", seconds_from_ns(t_ns - first_ns))
        self.metrics.observe("e2e_request_latency_seconds", seconds_from_ns(t_ns - waiting.arrived_ns))
        self.metrics.observe("request_prompt_tokens", job.prompt_tokens)
        self.metrics.observe("request_generation_tokens", job.emitted)
