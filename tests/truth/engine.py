"""A discrete-event batching engine that knows each request's fair share, and what a proxy sees of it.

Shares no code and no constants with ``proxy.core`` and ``proxy.simulator``.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample

NS = 1_000_000_000
SPREAD_SECONDS = 3e-5  # between two chunks of one step


@dataclass(frozen=True, slots=True)
class Case:
    """An engine, its load and what blurs the view. Seconds, joules, tokens."""

    rate: float
    seconds: float = 60.0
    budget: int = 2048
    seats: int = 256
    static_j: float = 3.24
    decode_j: float = 0.009
    context_j: float = 2.5e-5
    prefill_j: float = 0.0101
    idle_w: float = 74.0
    static_s: float = 6.2e-3
    decode_s: float = 4e-5
    context_s: float = 1.1e-8
    prefill_s: float = 2.6e-5
    prompt_median: float = 400.0
    output_median: float = 180.0
    delay_s: float = 1e-3
    jitter_s: float = 0.0
    merged: float = 0.0
    whole: float = 0.0  # share of answers that are not streamed
    cancelled: float = 0.0
    cached: float = 0.0
    period_s: float = 0.1


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
    """What a proxy sees (``events``, in order) and what it should find."""

    events: list[Event]
    joules: dict[str, float]
    idle_joules: float


@dataclass(slots=True)
class _Power:
    """Cumulative energy as pieces of constant power."""

    pieces: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, start: float, end: float, joules: float) -> None:
        self.pieces.append((start, end, joules))

    def samples(self, period: float) -> list[Event]:
        out: list[Event] = []
        total, piece, tick = 0.0, 0, 0
        last = self.pieces[-1][1]
        while (t := tick * period) < last:
            while self.pieces[piece][1] <= t:
                total += self.pieces[piece][2]
                piece += 1
            start, end, joules = self.pieces[piece]
            now = total + joules * max(t - start, 0.0) / (end - start)
            out.append(Sample(round(t * NS), "gpu0", energy_mj=float(int(now * 1e3) + 987_654)))
            tick += 1
        return out


def simulate(case: Case, seed: int) -> Run:
    """Run a case to its end."""
    rng = random.Random(seed)
    requests = _requests(case, rng)
    power, events = _Power(), list[Event]()
    waiting, running = deque[Request](), list[Request]()
    now, idle, coming = 0.0, 0.0, deque(requests)
    while coming or waiting or running:
        while coming and coming[0].t <= now:
            waiting.append(coming.popleft())
        if not waiting and not running:
            idle += case.idle_w * (coming[0].t - now)
            power.add(now, coming[0].t, case.idle_w * (coming[0].t - now))
            now = coming[0].t
            continue
        decode = [r for r in running if not r.left]
        chunks = _chunks(case, waiting, running, case.budget - len(decode))
        length = _charge(case, decode, chunks, power.add, now)
        now += length
        emitting = decode + [r for r, _ in chunks if not r.left]
        rng.shuffle(emitting)
        _show(case, emitting, now + case.delay_s, rng, events, running)
    power.add(now, now + 2.0, case.idle_w * 2.0)
    events += [
        Arrive(round(r.t * NS), r.name, "chat", "m", r.stream, ("gpu0",)) for r in requests
    ] + power.samples(case.period_s)
    events.sort(key=lambda event: event.t_ns or 0)
    header = Header(1, (Device("gpu0"),))
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


def _chunks(
    case: Case, waiting: deque[Request], running: list[Request], budget: int
) -> list[tuple[Request, int]]:
    chunks = []
    for request in running:
        if request.left and budget > 0:
            chunks.append((request, min(budget, request.left)))
            budget -= chunks[-1][1]
    while waiting and budget > 0 and len(running) < case.seats:
        request = waiting.popleft()
        running.append(request)
        chunks.append((request, min(budget, request.left)))
        budget -= chunks[-1][1]
    return chunks


def _charge(
    case: Case,
    decode: list[Request],
    chunks: list[tuple[Request, int]],
    draw: Callable[[float, float, float], None],
    now: float,
) -> float:
    """Cost of a step, to its members; its length in seconds."""
    context = sum(r.prompt + r.out for r in decode)
    prompt = sum(n for _, n in chunks)
    length = case.static_s + case.decode_s * len(decode) + case.context_s * context + case.prefill_s * prompt
    each = case.static_j / (len(decode) + len(chunks))
    total = case.static_j + case.decode_j * len(decode) + case.context_j * context + case.prefill_j * prompt
    for request in decode:
        request.joules += each + case.decode_j + case.context_j * (request.prompt + request.out)
    for request, count in chunks:
        request.joules += each + case.prefill_j * count
        request.left -= count
    draw(now, now + length, total)
    return length


def _show(
    case: Case,
    emitting: list[Request],
    t: float,
    rng: random.Random,
    events: list[Event],
    running: list[Request],
) -> None:
    """Chunks and ends as they reach a proxy."""
    for request in emitting:
        request.out += 1
        request.held += 1
        t += rng.random() * SPREAD_SECONDS
        at = max(t + abs(rng.gauss(0.0, case.jitter_s)), request.shown + 1e-6)
        last = request.out in {request.output, request.stop}
        if request.stream and (last or rng.random() >= case.merged):
            events.append(Output(round(at * NS), request.name, request.held))
            request.held, request.shown = 0, at
        if last:
            running.remove(request)
            stamp = round(at * NS) + 1000
            if request.out == request.output:
                usage = (request.prompt, request.cached, request.out)
                events.append(End(stamp, request.name, 200, False, *usage))
            else:
                events.append(End(stamp, request.name, None, True))
