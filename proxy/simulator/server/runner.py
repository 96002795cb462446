"""The engine in real time: steps at absolute deadlines, their power on the simulated GPU."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from proxy.clock import now_ns
from proxy.simulator.engine.step_costs import Floats
from proxy.simulator.gpu.board import Board
from proxy.units import NS_PER_MS, ns_from_seconds, seconds_from_ns

# A segment is written a little before it begins: of one that began before a reading of the counter, the next
# reading shows what that one did not.
LEAD_NS: Final = 100_000
# Further behind than this (a machine too busy to simulate in real time) the schedule starts anew: catching up
# would be a burst that no GPU shows.
BEHIND_NS: Final = 20 * NS_PER_MS

Draw = Callable[[int, float], None]  # from t_ns on the devices draw so many watts together
Sink = Callable[[bool | None], None]  # True: a token came, False: the last one, None: the engine has failed
log = logging.getLogger(__name__)


class AnyJob(Protocol):
    """The part of a job that a runner uses."""

    @property
    def name(self) -> str:
        """Unique."""

    @property
    def done(self) -> bool:
        """Whether all of it is out."""


class AnyPlan(Protocol):
    """A step to be taken, its cost in its first items."""

    @property
    def seconds(self) -> Floats | tuple[float, ...]:
        """How long it takes."""

    @property
    def joules(self) -> Floats | tuple[float, ...]:
        """Energy in joules, of all devices together."""


J = TypeVar("J", bound=AnyJob)
P = TypeVar("P", bound=AnyPlan)
J_contra = TypeVar("J_contra", bound=AnyJob, contravariant=True)
P_contra = TypeVar("P_contra", bound=AnyPlan, contravariant=True)


class AnyEngine(Protocol[J, P]):
    """An engine that steps; :class:`~proxy.simulator.engine.Engine` is one."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""

    def submit(self, job: J) -> None:
        """Queue a job."""

    def cancel(self, job: J) -> None:
        """Its client has gone."""

    def plan(self) -> P | None:
        """Return the next step; None if there is nothing to do."""

    def begun(self, plan: P) -> Iterable[J]:
        """Jobs that compute in a planned step, and perhaps have waited before."""

    def take(self, plan: P, scale: float) -> tuple[Iterable[J], Iterable[J]]:
        """Finish a step: jobs that got something (a token each), and jobs that are done."""


class Observer(Protocol[J_contra, P_contra]):
    """Who counts what a runner does; times in seconds."""

    def step(self, plan: P_contra, seconds: float) -> None:
        """Receive the end of a step that took ``seconds``."""

    def scheduled(self, job: J_contra, waited: float) -> None:
        """Receive the first step of a job, ``waited`` seconds after its arrival."""

    def first(self, job: J_contra, waited: float, computed: float) -> None:
        """Receive the first token of a job: seconds since its arrival and since it was scheduled."""

    def ended(self, job: J_contra, duration: float, after_first: float) -> None:
        """Receive the end of a job: seconds since its arrival and since its first token."""

    def aborted(self) -> None:
        """Receive the disconnection of a client."""


@dataclass(slots=True)
class _Waiting(Generic[J]):
    """A job whose tokens someone waits for; stamps of the monotonic clock, None: not yet."""

    job: J
    sink: Sink
    arrived_ns: int
    scheduled_ns: int | None = None
    first_ns: int | None = None


class Runner(Generic[J, P]):
    """Runs steps while there are requests, and sends the tokens of each job to its sink.

    A step is charged the energy that it really drew, power times the time until the start of the next one:
    the counter and the sum of the requests agree exactly. Step n ends at the time that the profile gives,
    counted from the last idle time, regardless of delays of this process.
    """

    def __init__(self, engine: AnyEngine[J, P], observer: Observer[J, P], board: Board, draw: Draw) -> None:
        self._engine = engine
        self._observer = observer
        self.busy_joules = 0.0
        self.late_seconds = 0.0  # by which the schedule was started anew
        self.failed = False
        self._idle_joules = 0.0
        self._idle_since: int | None = None
        self._idle_watts = board.idle_watts  # of the piece of idle time that began at idle_since
        self._board = board
        self._draw = draw
        self._arrived = asyncio.Event()
        self._outputs: dict[str, _Waiting[J]] = {}

    def idle_joules(self, t_ns: int) -> float:
        """Joules drawn while there was no request, up to a time not before the last step."""
        if self._idle_since is None:
            return self._idle_joules
        return self._idle_joules + self._idle_watts * seconds_from_ns(t_ns - self._idle_since)

    def watch(self, observer: Observer[J, P]) -> None:
        """Notify this observer from now on."""
        self._observer = observer

    def submit(self, job: J, sink: Sink) -> None:
        """Queue a job that the engine does not refuse."""
        if self.failed:
            sink(None)
        self._outputs[job.name] = _Waiting(job, sink, now_ns())
        self._engine.submit(job)
        self._arrived.set()

    def leave(self, job: J) -> None:
        """Remove a job whose client disconnected or needs no more tokens."""
        if self._outputs.pop(job.name, None) is not None and not job.done:
            self._engine.cancel(job)
            self._observer.aborted()

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
            while (step := self._engine.plan()) is not None:
                seconds, joules = step.seconds[0], step.joules[0]
                watts = self._board.step(joules / seconds, seconds)
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
        """Idle until there is a request, a piece of power after the other; when its first step begins."""
        since = now_ns() + LEAD_NS if self._idle_since is None else self._idle_since
        rested = 0.0
        while True:
            lasts, self._idle_watts = self._board.idle(rested)
            self._idle_since = since
            self._draw(since, self._idle_watts)
            over = None if lasts == math.inf else since + ns_from_seconds(lasts)
            arrived = await self._waited(over)
            end = max(now_ns() + LEAD_NS, since if arrived or over is None else over)
            seconds = seconds_from_ns(end - since)
            self._idle_joules += self._idle_watts * seconds
            self._board.rest(rested, self._idle_watts, seconds)
            rested, since = rested + seconds, end
            if arrived:
                self._idle_since = None
                return end

    async def _waited(self, until_ns: int | None) -> bool:
        """Until there is a request (True), or until shortly before that time."""
        try:
            left = None if until_ns is None else seconds_from_ns(until_ns - LEAD_NS - now_ns())
            async with asyncio.timeout(left):
                while self._engine.idle:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return not self._engine.idle
        return True

    def _finish(self, step: P, start_ns: int, end_ns: int, scale: float) -> None:
        """Charge a step, notify the sinks and the observers."""
        for job in self._engine.begun(step):
            if (waiting := self._outputs.get(job.name)) is not None and waiting.scheduled_ns is None:
                waiting.scheduled_ns = start_ns
                self._observer.scheduled(job, seconds_from_ns(start_ns - waiting.arrived_ns))
        self._observer.step(step, seconds_from_ns(end_ns - start_ns))
        got, done = self._engine.take(step, scale)
        for job in got:
            if (waiting := self._outputs.get(job.name)) is not None:
                if waiting.first_ns is None:
                    self._first(waiting, end_ns)
                waiting.sink(not job.done)
        for job in done:
            if (waiting := self._outputs.get(job.name)) is not None:
                duration, after = end_ns - waiting.arrived_ns, end_ns - (waiting.first_ns or end_ns)
                self._observer.ended(job, seconds_from_ns(duration), seconds_from_ns(after))

    def _first(self, waiting: _Waiting[J], t_ns: int) -> None:
        waiting.first_ns = t_ns
        waited, computed = t_ns - waiting.arrived_ns, t_ns - (waiting.scheduled_ns or t_ns)
        self._observer.first(waiting.job, seconds_from_ns(waited), seconds_from_ns(computed))
