"""Engines as people deploy them: a discrete-event simulation with the fair share of each request.

One or several engines (replicas, prefill and decode apart, two models on one device) serve requests by the
scheduler of vLLM v1: decoding streams first, then prompts in order of arrival under a token budget,
preemption
by recompute when the KV cache is full. ``simulate`` returns what a proxy would see (``events``) and the
truth.

Shares no code and no constants with ``proxy``; only the event types of the timeline format.
"""

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Step
from proxy.truth.deployments import Deployment
from proxy.truth.machine import Machine
from proxy.truth.sensors import NS, Meter

_SPREAD_SECONDS = 3e-5  # between two chunks of one step
_BYTES = 4.3  # of a prompt's token
_HASHED_BYTES = 512  # of a prompt's block, by which prompts are compared
_TRANSFER_SECONDS = 0.012  # of the KV cache from the prefill engine to the decode engine


@dataclass(slots=True, eq=False)
class Sequence:
    """One sample of a request: what it has emitted, and what of that its client has not been sent."""

    request: "Request"
    output: int
    out: int = 0
    held: int = 0
    shown_s: float = 0.0
    chunks: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """One request and its truth; tokens and seconds."""

    name: str
    arrival_s: float
    prompt: int
    cached: int
    prefix: int  # tokens that an earlier prompt began with; of these ``cached`` were still in the cache
    sequences: list[Sequence]
    stream: bool
    stop: int | None  # cancelled by its client after so many tokens
    accepted: float  # chance of each drafted token
    model: str
    left: int = 0  # tokens to compute before the next output token
    restored: bool = False
    alive: list[Sequence] = field(default_factory=list)
    joules: float = 0.0
    ended: bool = False

    @property
    def kv(self) -> int:
        """Tokens in the KV cache once the prompt is computed."""
        return self.prompt + sum(s.out for s in self.alive)


@dataclass(slots=True)
class Run:
    """The events that a proxy sees, in order, and the joules that it should find."""

    events: list[Event]
    joules: dict[str, float]
    idle_joules: float


class Engine:
    """One scheduler with its queue. ``devices`` share each step's energy equally."""

    def __init__(
        self, fleet: "Fleet", machine: Machine, devices: tuple[str, ...], role: str, model: str
    ) -> None:
        self.fleet, self.machine, self.devices, self.role, self.model = fleet, machine, devices, role, model
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def load(self) -> int:
        """Number of requests in the engine or in its queue."""
        return len(self.waiting) + len(self.running)

    def plan(self) -> tuple[list[Request], list[tuple[Request, int]]]:
        """Who decodes in the next step, and how many prompt tokens of whom are computed beside."""
        case = self.fleet.case
        decode = [r for r in self.running if not r.left]
        while (
            decode
            and self._kv() + sum(len(r.alive) for r in decode) > case.kv_tokens
            and len(self.running) > 1
        ):
            self._preempt(self.running[-1])
            decode = [r for r in self.running if not r.left]
        budget = case.budget - sum(self._tokens(r) for r in decode)
        chunks: list[tuple[Request, int]] = []
        for request in [r for r in self.running if r.left]:
            if budget > 0:
                chunks.append((request, min(budget, request.left)))
                budget -= chunks[-1][1]
        while self.waiting and budget > 0 and len(self.running) < case.seats:
            request = self.waiting[0]
            if (
                self.running
                and self._kv() + request.prompt + sum(s.out for s in request.alive) > case.kv_tokens
            ):
                break
            self.running.append(self.waiting.popleft())
            chunks.append((request, min(budget, request.left)))
            budget -= chunks[-1][1]
        return decode, chunks

    def _kv(self) -> int:
        return sum(r.kv for r in self.running)

    def _tokens(self, request: Request) -> int:
        return len(request.alive) * (1 + self.fleet.case.drafts)

    def _preempt(self, victim: Request) -> None:
        """Free the KV cache of the request that came last; all of it is computed again later."""
        self.running.remove(victim)
        victim.left, victim.restored = victim.kv, True
        self.waiting.appendleft(victim)

    def step(self, now: float) -> float:
        """Run one step from ``now``; return its end in seconds, or ``now`` when there is nothing to do."""
        fleet, machine = self.fleet, self.machine
        decode, chunks = self.plan()
        if not decode and not chunks:
            return now
        members = [*decode, *(r for r, _ in chunks)]
        tokens = [float(self._tokens(r)) for r in decode] + [float(n) for _, n in chunks]
        context = [float(sum(r.prompt + s.out for s in r.alive)) for r in decode]
        context += [float(r.prompt - r.left) for r, _ in chunks]  # an earlier part of the prompt is read
        clock = machine.clock(sum(context), sum(tokens))
        length = machine.length(sum(context), sum(tokens), clock)
        shares = machine.shares(context, tokens, clock, fleet.numbers)
        for request, joules in zip(members, shares.tolist(), strict=True):
            request.joules += joules
        stall = max(1.0, fleet.rng.gauss(1.0, fleet.case.step_noise)) if fleet.case.step_noise else 1.0
        end = now + length * stall
        # A step that its host holds up draws its base power for longer: everybody's share grows alike.
        total = float(shares.sum())
        extra = (stall - 1.0) * length * machine.watts
        if extra:
            for request, joules in zip(members, shares.tolist(), strict=True):
                request.joules += extra * joules / total
        for device in self.devices:
            fleet.meters[device].add(now, end, (total + extra) / len(self.devices))
        if fleet.case.reported_steps:
            fleet.events.append(
                Step(
                    round(end * NS),
                    self.model if fleet.case.models > 1 else None,
                    fleet.devices_of(self.model),
                    round(now * NS),
                    {r.name: n for r, n in chunks},
                    tuple(r.name for r in decode),
                )
            )
        self._advance(decode, chunks, end)
        return end

    def _advance(self, decode: list[Request], chunks: list[tuple[Request, int]], end: float) -> None:
        emitting: list[tuple[Request, list[Sequence]]] = [(r, list(r.alive)) for r in decode]
        for request, count in chunks:
            request.left -= count
            if request.left:
                continue
            if request.restored:
                request.restored = False  # the tokens it had emitted were computed again
            emitting.append((request, list(request.alive)))
        self.fleet.rng.shuffle(emitting)
        t = end
        for request, sequences in emitting:
            for sequence in sequences:
                t += self.fleet.rng.random() * _SPREAD_SECONDS
                self._emit(request, sequence, t)
            if self.role == "prefill":
                self.running.remove(request)
                if not request.ended:
                    self.fleet.hand_over(request, end + _TRANSFER_SECONDS)
            elif request.ended:
                self.running.remove(request)

    def _emit(self, request: Request, sequence: Sequence, t: float) -> None:
        """Emit new tokens of one sequence, and the chunk in which they reach the proxy, if any."""
        fleet, case = self.fleet, self.fleet.case
        more = 1
        while sequence.out and more <= case.drafts and fleet.rng.random() < request.accepted:
            more += 1
        limit = min(sequence.output, request.stop or sequence.output)
        more = min(more, limit - sequence.out)
        sequence.out += more
        sequence.held += more
        last = sequence.out == limit
        delay = abs(fleet.rng.gauss(case.delay_s, case.jitter_s)) if case.jitter_s else case.delay_s
        at = max(t + delay, sequence.shown_s + 1e-6)
        due = not sequence.chunks or last or sequence.held >= case.stream_interval
        merged = case.merged and not last and fleet.rng.random() < case.merged
        if request.stream and due and not merged:
            fleet.events.append(Output(round(at * NS), request.name, None if case.unsized else sequence.held))
            sequence.held, sequence.shown_s = 0, at
            sequence.chunks += 1
        if last:
            request.alive.remove(sequence)
            if not request.alive:
                request.ended = True
                shown = max(at, *(s.shown_s for s in request.sequences))
                fleet.events.append(self._end(request, round(shown * NS) + 1000))

    def _end(self, request: Request, stamp: int) -> End:
        if request.stop is not None:
            return End(stamp, request.name, None, True)
        case = self.fleet.case
        if not case.usage:
            return End(stamp, request.name, 200)
        cached = request.cached if case.cached_reported else None
        total = sum(s.out for s in request.sequences)
        return End(stamp, request.name, 200, False, request.prompt, cached, total)


class Fleet:
    """The state of a run."""

    def __init__(self, case: Deployment, seed: int) -> None:
        self.case = case
        self.rng = random.Random(seed)
        self.texts = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.events: list[Event] = []
        self.meters: dict[str, Meter] = {}
        self.engines: list[Engine] = []
        self._busy_until: dict[str, float] = {}
        self._heap: list[tuple[float, int, str, object]] = []
        self._count = itertools.count()
        self._turn = itertools.count()
        self._in_flight = 0
        self._names = itertools.count()
        self.requests: list[Request] = []
        self._build()

    def _build(self) -> None:
        case = self.case
        if case.disaggregated:
            self.engines = [
                Engine(self, case.machine, ("gpu0",), "prefill", "m0"),
                Engine(self, case.machine, ("gpu1",), "decode", "m0"),
            ]
        elif case.models > 1:
            machines = (case.machine, case.other or case.machine)
            self.engines = [
                Engine(self, machines[i % 2], ("gpu0",), "both", f"m{i}") for i in range(case.models)
            ]
        else:
            width = case.tensor_parallel
            for replica in range(case.replicas):
                devices = tuple(f"gpu{replica * width + i}" for i in range(width))
                self.engines.append(Engine(self, case.machine, devices, "both", "m0"))
        for engine in self.engines:
            for device in engine.devices:
                self.meters.setdefault(device, Meter(case.machine.idle_watts / case.tensor_parallel))
                self._busy_until.setdefault(device, 0.0)

    def devices_of(self, model: str) -> tuple[str, ...]:
        """Return the devices that the proxy is configured with for a model."""
        return tuple(dict.fromkeys(d for e in self.engines if e.model == model for d in e.devices))

    def _at(self, t: float, what: str, who: object = None) -> None:
        heapq.heappush(self._heap, (t, next(self._count), what, who))

    def hand_over(self, request: Request, t: float) -> None:
        """Send a computed prompt to the decode engine."""
        request.left = 0
        self._at(t, "handed", request)

    def run(self) -> Run:
        """Run to the end of the last request."""
        case = self.case
        if case.in_flight:
            for _ in range(case.in_flight):
                self._at(0.5 + self.rng.random() * 2.0, "arrive")
        else:
            self._at(case.next_arrival(0.5, self.rng), "arrive")
        now = 0.0
        while self._heap:
            now, _, what, who = heapq.heappop(self._heap)
            if what == "arrive":
                self._arrive(now)
                if not case.in_flight:
                    later = case.next_arrival(now, self.rng)
                    if later < case.seconds:
                        self._at(later, "arrive")
            elif what == "handed":
                assert isinstance(who, Request)
                self.engines[-1].running.append(who)
                self._wake(self.engines[-1], now)
            elif what == "free":
                assert isinstance(who, str)
                self._next_step(who, now)
        return self._result(now)

    def _wake(self, engine: Engine, now: float) -> None:
        device = engine.devices[0]
        if self._busy_until[device] <= now:
            self._next_step(device, now)

    def _next_step(self, device: str, now: float) -> None:
        """Give the device to the next engine on it that has work (they take turns)."""
        if self._busy_until[device] > now:
            return
        here = [e for e in self.engines if e.devices[0] == device]
        first = next(self._turn)
        for offset in range(len(here)):
            engine = here[(first + offset) % len(here)]
            before = self.requests_of(engine)
            end = engine.step(now)
            if end > now:
                self._busy_until[device] = end
                self._at(end, "free", device)
                if self.case.in_flight:
                    for request in before:
                        if request.ended and end < self.case.seconds:
                            self._at(end + 1e-3, "arrive")
                return

    @staticmethod
    def requests_of(engine: Engine) -> list[Request]:
        """Return the requests in the engine or in its queue."""
        return [*engine.running, *engine.waiting]

    def _arrive(self, now: float) -> None:
        case, rng = self.case, self.rng
        number = next(self._names)
        prompt, prefix, cached = case.prompt(rng, number)
        samples = case.samples if rng.random() < case.sampled else 1
        lengths = [case.output(rng) for _ in range(samples)]
        stop = rng.randrange(1, lengths[0]) if samples == 1 and rng.random() < case.cancelled else None
        model = f"m{number % case.models}" if case.models > 1 else "m0"
        request = Request(
            f"r{number}", now, prompt, cached, prefix, [], rng.random() >= case.whole, stop,
            min(max(rng.gauss(case.acceptance, 0.15), 0.05), 0.95), model, left=prompt - cached,
        )  # fmt: skip
        request.sequences = [Sequence(request, length) for length in lengths]
        request.alive = list(request.sequences)
        self.requests.append(request)
        prompt_bytes, prefix_bytes = self._bytes(prompt, prefix) if case.prompts_compared else (None, None)
        self.events.append(
            Arrive(
                round(now * NS), request.name, "chat", model, request.stream, self.devices_of(model),
                backend=model if case.models > 1 else None, prompt_bytes=prompt_bytes,
                prefix_bytes=prefix_bytes, samples=samples,
            )
        )  # fmt: skip
        choices = [e for e in self.engines if e.model == model and e.role != "decode"]
        engine = min(choices, key=lambda e: e.load) if case.least_loaded else choices[number % len(choices)]
        engine.waiting.append(request)
        self._at(now + case.delay_s, "free", engine.devices[0])

    def _bytes(self, prompt: int, prefix: int) -> tuple[int, int]:
        """Return the bytes of a prompt and of its prefix, seen in blocks; texts differ in density."""
        whole = prompt * _BYTES * self.texts.uniform(0.85, 1.15)
        part = prefix / prompt * whole * self.texts.uniform(0.95, 1.05)
        return round(whole), int(min(part, whole)) // _HASHED_BYTES * _HASHED_BYTES

    def _result(self, now: float) -> Run:
        case = self.case
        events, idle = self.events, 0.0
        end = max(now, *(meter.until_s for meter in self.meters.values())) + 2.0
        for device, meter in self.meters.items():
            idle += meter.finish(end)
            events += meter.samples(device, case.period_s, case.lag_s)
        # A chunk cannot come before its request, nor anything after its end.
        events.sort(key=lambda event: event.t_ns or 0)
        header = Header(1, tuple(Device(device) for device in self.meters), settle_s=120.0)
        return Run([header, *events], {r.name: r.joules for r in self.requests}, idle)


def simulate(case: Deployment, seed: int) -> Run:
    """Run a deployment to its end; deterministic per seed."""
    return Fleet(case, seed).run()
