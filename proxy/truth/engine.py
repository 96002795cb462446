"""A discrete-event batching engine with the fair share of each request, and the events that a proxy sees.

Shares no code and no constants with ``proxy.core`` and ``proxy.simulator``.
"""

import math
import random
from collections import deque
from dataclasses import dataclass, field

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Step
from proxy.truth.cases import Case
from proxy.truth.sensors import Power, samples

NS = 1_000_000_000
SPREAD_SECONDS = 3e-5  # between two chunks of one step


@dataclass(slots=True)
class Request:
    """One request and its truth."""

    name: str
    t: float
    prompt: int
    cached: int
    output: int
    stream: bool
    stop: int | None
    left: int
    out: int = 0
    held: int = 0  # tokens not shown yet
    shown: float = 0.0
    joules: float = 0.0


@dataclass(slots=True)
class Run:
    """Events that a proxy sees, in order, and the joules that it should find."""

    events: list[Event]
    joules: dict[str, float]
    idle_joules: float


Chunks = list[tuple[Request, int]]


@dataclass(slots=True)
class Engine:
    """The state of a run."""

    case: Case
    rng: random.Random
    power: Power = field(default_factory=Power)
    events: list[Event] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    running: list[Request] = field(default_factory=list)

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that share each step's energy equally."""
        return tuple(f"gpu{index}" for index in range(self.case.devices))

    def step(self, now: float) -> float:
        """One step from ``now``; returns its length in seconds."""
        decode = [r for r in self.running if not r.left]
        chunks = self._chunks(len(decode))
        if chunks and self.case.scheduler == "prefill_first":
            decode = []
        if self.case.reported_steps:
            reported = {r.name: n for r, n in chunks}, tuple(r.name for r in decode)
        length = self._length(decode, chunks)
        self._charge(decode, chunks, now, now + length)
        if self.case.reported_steps:
            stamp = round((now + length) * NS)
            self.events.append(Step(stamp, None, self.devices, round(now * NS), *reported))
        emitting = decode + [r for r, _ in chunks if not r.left]
        self.rng.shuffle(emitting)
        self._show(emitting, now + length + self.case.delay_s)
        return length

    def _chunks(self, decoding: int) -> Chunks:
        """Prompt tokens to compute in this step, by the scheduler's rule."""
        while self.waiting and len(self.running) < self.case.seats:
            if self.case.scheduler != "side_by_side" and self._owed() >= self.case.budget:
                break
            self.running.append(self.waiting.popleft())
        owing = [r for r in self.running if r.left]
        if self.case.scheduler == "side_by_side":
            each = max(self.case.budget // max(len(owing), 1), 1)
            return [(r, min(r.left, each)) for r in owing]
        budget = self.case.budget - (0 if self.case.scheduler == "prefill_first" else decoding)
        chunks: Chunks = []
        for request in owing:
            if budget <= 0:
                break
            chunks.append((request, min(budget, request.left)))
            budget -= chunks[-1][1]
        return chunks

    def _owed(self) -> int:
        return sum(r.left for r in self.running)

    def _length(self, decode: list[Request], chunks: Chunks) -> float:
        case = self.case
        context = sum(r.prompt + r.out for r in decode)
        prompt = sum(n for _, n in chunks)
        if case.roofline:
            memory = 0.85 * case.static_s + case.context_s * context
            length = 0.15 * case.static_s + max(memory, case.prefill_s * (prompt + len(decode)))
        else:
            length = case.static_s + case.decode_s * len(decode)
            length += case.context_s * context + case.prefill_s * prompt
        return length * max(0.5, self.rng.gauss(1.0, case.step_noise)) if case.step_noise else length

    def _charge(self, decode: list[Request], chunks: Chunks, start: float, end: float) -> None:
        """Charge the step to its members: the Shapley value of a linear cost."""
        case, total = self.case, self.case.static_j
        each = case.static_j / (len(decode) + len(chunks))
        for request in decode:
            own = case.decode_j + case.context_j * (request.prompt + request.out)
            request.joules += each + own
            total += own
        for request, count in chunks:
            request.joules += each + case.prefill_j * count
            request.left -= count
            total += case.prefill_j * count
        self.power.add(start, end, total)

    def _show(self, emitting: list[Request], t: float) -> None:
        """Chunks and ends as they reach a proxy."""
        case, rng = self.case, self.rng
        for request in emitting:
            limit = request.stop or request.output
            more = 1
            while request.out and more < 4 and case.speculated and rng.random() < case.speculated:
                more += 1
            more = min(more, limit - request.out)
            request.out += more
            request.held += more
            t += rng.random() * SPREAD_SECONDS
            at = max(t + abs(rng.gauss(0.0, case.jitter_s)), request.shown + 1e-6)
            last = request.out == limit
            if request.stream and (last or rng.random() >= case.merged):
                tokens = None if case.unsized else request.held
                self.events.append(Output(round(at * NS), request.name, tokens))
                request.held, request.shown = 0, at
            if last:
                self.running.remove(request)
                self.events.append(_end(request, round(at * NS) + 1000))


def _end(request: Request, stamp: int) -> End:
    if request.stop is not None:
        return End(stamp, request.name, None, True)
    return End(stamp, request.name, 200, False, request.prompt, request.cached, request.out)


def simulate(case: Case, seed: int) -> Run:
    """Run a case to its end."""
    engine = Engine(case, random.Random(seed))
    requests = _requests(case, engine.rng)
    now, idle, coming = 0.0, 0.0, deque(requests)
    while coming or engine.waiting or engine.running:
        while coming and coming[0].t <= now:
            engine.waiting.append(coming.popleft())
        if engine.waiting or engine.running:
            now += engine.step(now)
        else:
            joules = case.idle_w * (coming[0].t - now)
            engine.power.add(now, coming[0].t, joules)
            idle, now = idle + joules, coming[0].t
    engine.power.add(now, now + 2.0, case.idle_w * 2.0)
    events = engine.events
    events += [Arrive(round(r.t * NS), r.name, "chat", "m", r.stream, engine.devices) for r in requests]
    for device in engine.devices:
        events += samples(engine.power, case, device, (1.0 + case.gain) / case.devices)
    events.sort(key=lambda event: event.t_ns or 0)
    gain = abs(case.gain) or None
    header = Header(1, tuple(Device(device, gain_error=gain) for device in engine.devices))
    return Run([header, *events], {r.name: r.joules for r in requests}, idle)


def _requests(case: Case, rng: random.Random) -> list[Request]:
    out: list[Request] = []
    t = 0.5
    while (t := t + rng.expovariate(case.rate)) < case.seconds:
        prompt = min(max(4, round(rng.lognormvariate(math.log(case.prompt_median), 1.0))), 16_000)
        output = min(max(2, round(rng.lognormvariate(math.log(case.output_median), 0.8))), 2_000)
        cached = prompt // 2 // 16 * 16 if rng.random() < case.cached else 0
        stop = rng.randrange(1, output) if rng.random() < case.cancelled else None
        stream = rng.random() >= case.whole
        out.append(Request(f"r{len(out)}", t, prompt, cached, output, stream, stop, prompt - cached))
    return out
