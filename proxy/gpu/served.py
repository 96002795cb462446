"""The policies of the proxy against measured truth, on requests that the engine serves.

Sets of requests arrive together, round after round. The truth of a request is the sum, over the steps that it
was in, of its measured Shapley value in that step, and of its share of the waits between steps
(:mod:`proxy.gpu.occupancy`). The policies see what the proxy would: arrivals, chunks, ends and readings of
the counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from proxy.core.attribution import Attributor, Share
from proxy.core.events import Arrive, End, Event, Header, Output, Sample
from proxy.core.events import Device as DeviceEvent
from proxy.gpu.composition import Composition, Work, in_grain, tokens
from proxy.gpu.device import Device
from proxy.gpu.engine import Engine, Request, Runner, Step
from proxy.gpu.measured import CostMeter, coalitions
from proxy.gpu.occupancy import Counter, intervals
from proxy.gpu.shapley import Measured
from proxy.units import NS_PER_MS

POLICIES: Final = ("steps", "overlap", "tokens")
_DEVICE: Final = "gpu0"
PAUSE_SECONDS: Final = 0.3  # between rounds, so that the idle power is seen
START_SECONDS: Final = 1.0
_HALVES: Final = 200
_CHUNK_NS: Final = NS_PER_MS // 50  # between two chunks of one step


@dataclass(frozen=True, slots=True)
class RequestSet:
    """Requests that arrive together, round after round: (prompt, output) tokens of each."""

    name: str
    requests: tuple[tuple[int, int], ...]
    rounds: int = 12


@dataclass(frozen=True, slots=True)
class Served:
    """A timeline and the steps behind it."""

    events: list[Event]
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class PolicyScore:
    """Relative errors of the joules of each request and round."""

    policy: str
    median: float
    p95: float
    inside: float


@dataclass(frozen=True, slots=True)
class SetResult:
    """One set of requests: measured truth and the policies' errors.

    Attributes:
        closure: sum of the measured truth of all requests / joules of their steps on the counter. It differs
            from 1 by the error of the truth and by what serving costs beside repeating one step.
        waiting: part of the truth that is idle power between steps, beyond that between repeated ones.
        truth_error: largest relative standard error of a request's truth.
        compositions: steps that differ; ``coalitions``: those that were measured for them.
    """

    name: str
    requests: int
    rounds: int
    compositions: int
    coalitions: int
    closure: float
    waiting: float
    truth_error: float
    joules: list[float]  # of one round, ascending
    scores: list[PolicyScore]
    halves: dict[str, float]  # by policy: median relative error of the sum over random halves of the requests


def serve(device: Device, runner: Runner, requests: RequestSet, budget: int) -> Served:
    """Serve all rounds of a set and return the events that a proxy would see."""
    engine = Engine(device, runner, budget)
    begin = device.now_ns()
    device.idle(START_SECONDS)
    events: list[Event] = []
    steps: list[Step] = []
    for number in range(requests.rounds):
        for index, (prompt, output) in enumerate(requests.requests):
            name = f"{number}.{index}"
            engine.add(Request(name, tokens(prompt, index), output))
            events.append(Arrive(device.now_ns(), name, "chat", "m", True, (_DEVICE,)))
        while (step := engine.step()) is not None:
            steps.append(step)
            events += _emitted(step)
        device.idle(PAUSE_SECONDS)
    device.idle(START_SECONDS)
    edges = device.edges(begin, device.now_ns())
    events += [Sample(edge.t_ns, _DEVICE, energy_mj=edge.mj) for edge in edges]
    events.sort(key=lambda event: event.t_ns or 0)
    return Served([Header(1, (DeviceEvent(_DEVICE),)), *events], steps)


def _emitted(step: Step) -> list[Event]:
    """Return the chunks of a step, and the ends of the responses that it finished."""
    events: list[Event] = []
    for index, request in enumerate(step.emitted):
        t_ns = step.end_ns + index * _CHUNK_NS
        events.append(Output(t_ns, request.name, 1))
        if request.finished:
            prompt, output = len(request.prompt), len(request.emitted)
            events.append(End(t_ns + 1, request.name, 200, False, prompt, 0, output))
    return events


def compare(meter: CostMeter, requests: RequestSet, budget: int, grain: int) -> SetResult:
    """Serve a set, measure the truth of its requests, and score the policies."""
    return judge(meter, requests, serve(meter.device, meter.runner, requests, budget), grain)


def judge(meter: CostMeter, requests: RequestSet, served: Served, grain: int) -> SetResult:
    """Measure the truth of the requests of a set that was served, and score the policies."""
    works = [[in_grain(work, grain) for work in step.works] for step in served.steps]
    compositions = [Composition.of(of_step) for of_step in works]
    distinct = list(dict.fromkeys(compositions))
    needed = [c for composition in distinct for c in coalitions(composition)]
    meter.plan(needed)
    values = {composition: meter.shapley(composition) for composition in distinct}
    counter, occupied = Counter(served.events), intervals(served.steps)
    idle_watts = counter.idle_watts(served.steps[0].start_ns)
    periods = [meter.measure(composition).period_s for composition in compositions]
    waits = [idle_watts * (long - usual) for long, usual in zip(occupied, periods, strict=True)]
    truth = _truth(served.steps, works, values, waits)
    joules = {name: found.mean for name, found in truth.items()}
    shares = {policy: attribute(policy, served.events) for policy in POLICIES}
    return SetResult(
        name=requests.name,
        requests=len(requests.requests),
        rounds=requests.rounds,
        compositions=len(distinct),
        coalitions=len(dict.fromkeys(needed)),
        closure=sum(joules.values()) / counter.occupied_joules(idle_watts, sum(occupied)),
        waiting=sum(waits) / sum(joules.values()),
        truth_error=max(found.error / found.mean for found in truth.values()),
        joules=sorted(joules.values())[:: requests.rounds],
        scores=[score(policy, shares[policy], joules) for policy in POLICIES],
        halves={policy: halves(shares[policy], joules) for policy in POLICIES},
    )


def _truth(
    steps: Sequence[Step],
    works: Sequence[Sequence[Work]],
    values: dict[Composition, list[Measured]],
    waits: Sequence[float],
) -> dict[str, Measured]:
    """Return the joules of each request; ``waits`` are those of each step beyond its measured cost.

    The errors of one composition's value are the same in all of its steps and add up linearly; those of
    different compositions are added linearly too, which is an upper bound.
    """
    mean: dict[str, float] = {}
    error: dict[str, float] = {}
    for step, of_step, wait in zip(steps, works, waits, strict=True):
        composition = Composition.of(of_step)
        by_kind = dict(zip(composition.kinds, values[composition], strict=True))
        for name, kind in zip(step.members, of_step, strict=True):
            mean[name] = mean.get(name, 0.0) + by_kind[kind].mean + wait / len(step.members)
            error[name] = error.get(name, 0.0) + by_kind[kind].error
    return {name: Measured(mean[name], error[name]) for name in mean}


def attribute(policy: str, events: Sequence[Event]) -> list[Share]:
    """Return the shares of a policy of the proxy."""
    core = Attributor(policy)
    core.feed_all(events)
    core.flush()
    return core.drain()


def score(policy: str, shares: Sequence[Share], joules: dict[str, float]) -> PolicyScore:
    """Return the errors of a policy."""
    truth = np.array([joules[s.request] for s in shares])
    found = np.array([s.joules or 0.0 for s in shares])
    low = np.array([s.joules_low or 0.0 for s in shares])
    high = np.array([np.inf if s.joules_high is None else s.joules_high for s in shares])
    errors = np.abs(found - truth) / truth
    inside = float(np.mean((low <= truth) & (truth <= high)))
    return PolicyScore(policy, float(np.median(errors)), float(np.quantile(errors, 0.95)), inside)


def halves(shares: Sequence[Share], joules: dict[str, float]) -> float:
    """Return the median relative error of the sum over random halves; errors without a bias cancel in it."""
    truth = np.array([joules[s.request] for s in shares])
    found = np.array([s.joules or 0.0 for s in shares])
    chosen = np.random.default_rng(1).random((_HALVES, len(shares))) < 0.5
    chosen[~chosen.any(axis=1)] = True
    return float(np.median(np.abs(chosen @ found / (chosen @ truth) - 1.0)))
