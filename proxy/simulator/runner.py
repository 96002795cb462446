"""The engine in real time: steps at absolute deadlines, their power on the simulated GPU."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from proxy.clock import now_ns
from proxy.simulator.engine import Engine
from proxy.simulator.job import Job
from proxy.simulator.profile import Profile
from proxy.units import NS_PER_MS, ns_from_seconds, seconds_from_ns

# A segment is written a little before it begins: one that began before a reading of the counter would make
# the counter step back.
LEAD_NS: Final = 100_000
# Further behind than this (a machine too busy to simulate in real time) the schedule starts anew: catching up
# would be a burst that no GPU shows.
BEHIND_NS: Final = 20 * NS_PER_MS

Draw = Callable[[int, float], None]  # from t_ns on the device draws so many watts
log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The engine ended before the answer did."""


class Runner:
    """Runs steps while there are requests; each job's tokens arrive in its queue.

    A step is charged with the energy it really drew, power times the time until the next one began: what the
    counter shows and what the requests are charged add up exactly. Step n ends when the profile says, counted
    from the last idle time, however late this program ran.
    """

    def __init__(self, profile: Profile, draw: Draw) -> None:
        self.engine = Engine(profile)
        self.busy_joules = 0.0
        self.late_seconds = 0.0  # by which the schedule was started anew
        self.failed = False
        self._idle_joules = 0.0
        self._idle_since: int | None = None
        self._idle_watts = profile.idle_watts
        self._draw = draw
        self._arrived = asyncio.Event()
        self._outputs: dict[str, asyncio.Queue[bool | None]] = {}

    def idle_joules(self, t_ns: int) -> float:
        """Joules drawn while there was no request, up to a time not before the last step."""
        if self._idle_since is None:
            return self._idle_joules
        return self._idle_joules + self._idle_watts * seconds_from_ns(t_ns - self._idle_since)

    def submit(self, job: Job) -> "asyncio.Queue[bool | None]":
        """Queue a job; its queue gets True for each token, False with the last, None if the engine ends."""
        queue: asyncio.Queue[bool | None] = asyncio.Queue()
        if self.failed:
            queue.put_nowait(None)
        self._outputs[job.name] = queue
        self.engine.submit(job)
        self._arrived.set()
        return queue

    def leave(self, job: Job) -> None:
        """The client of a job has gone, or has all it wanted."""
        if not job.done:
            self.engine.cancel(job)
        self._outputs.pop(job.name, None)

    async def run(self) -> None:
        """Until cancelled. What else ends it is logged, and ends every answer."""
        try:
            await self._run()
        except Exception:
            log.exception("the simulated engine failed")
            self.failed = True
            for queue in self._outputs.values():
                queue.put_nowait(None)
            raise

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
                decoding = list(self.engine.decoding())
                finished = self.engine.finish(step, drawn / joules)
                self._emit([*decoding, *finished.prompts])
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

    def _emit(self, jobs: list[Job]) -> None:
        for job in jobs:
            if (queue := self._outputs.get(job.name)) is not None:
                queue.put_nowait(not job.done)
