"""The engine in real time: steps at absolute deadlines, their power on the simulated GPU."""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.clock import now_ns
from proxy.simulator.engine import Engine, Job
from proxy.simulator.profile import Profile
from proxy.units import ns_from_seconds, seconds_from_ns

# A segment is written a little before it begins: one that began before a reading of the counter would make
# the counter step back.
LEAD_NS: Final = 100_000

Draw = Callable[[int, float], None]  # from t_ns on the device draws so many watts


class Runner:
    """Runs steps while there are requests; each job's tokens arrive in its queue, None at the end.

    A step is charged with the energy it really drew, power times the time until the next one began: what the
    counter shows and what the requests are charged add up exactly.
    """

    def __init__(self, profile: Profile, draw: Draw) -> None:
        self.engine = Engine(profile)
        self.idle_joules = 0.0
        self.busy_joules = 0.0
        self._idle_watts = profile.idle_watts
        self._draw = draw
        self._arrived = asyncio.Event()
        self._outputs: dict[str, asyncio.Queue[bool]] = {}

    def submit(self, job: Job) -> "asyncio.Queue[bool]":
        """Queue a job; its queue gets True for each token, False with the last."""
        queue: asyncio.Queue[bool] = asyncio.Queue()
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
        """Until cancelled."""
        start = now_ns() + LEAD_NS
        self._draw(start, self._idle_watts)
        while True:
            step = self.engine.plan()
            if step is None:
                self._arrived.clear()
                await self._arrived.wait()
                now = now_ns() + LEAD_NS
                self.idle_joules += self._idle_watts * seconds_from_ns(now - start)
                start = now
                continue
            watts = step.joules / step.seconds
            self._draw(start, watts)
            deadline = start + ns_from_seconds(step.seconds)
            await asyncio.sleep(max(seconds_from_ns(deadline - now_ns()), 0.0))
            end = now_ns() + LEAD_NS
            drawn = watts * seconds_from_ns(end - start)
            self.busy_joules += drawn
            for job in self.engine.finish(step, drawn / step.joules):
                if (queue := self._outputs.get(job.name)) is not None:
                    queue.put_nowait(not job.done)
            start = end
            if not self.engine.running and not self.engine.waiting:
                self._draw(start, self._idle_watts)
