"""Deployments: engines, loads and what blurs the proxy's view, as people run them."""

import math
import random
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.truth.machine import Machine


@dataclass(frozen=True, slots=True)
class Deployment:
    """One case. Seconds, tokens; shares between 0 and 1.

    Attributes:
        rate: requests per second (Poisson), unless ``in_flight`` keeps a constant number.
        on_s, off_s: seconds with and without arrivals, in turn; 0: always.
        prompt_median, prompt_sigma, output_median, output_sigma: of log-normal lengths.
        conversation: whether prompts grow turn by turn on a common prefix of an earlier one (agents).
        cached_reported: whether the usage of a response reports cached tokens.
        prompts_compared: whether the proxy reports how much of a prompt an earlier one began with.
        drafts: tokens drafted each step; ``acceptance``: mean chance of each, by request.
        samples: answers of one request (``n``), for a share ``sampled`` of requests.
        stream_interval: tokens of each chunk.
        delay_s, jitter_s: on the way from the engine to the proxy.
        lag_s: by which the energy counter lags.
    """

    machine: Machine = field(default_factory=Machine)
    other: Machine | None = None
    rate: float = 10.0
    in_flight: int = 0
    seconds: float = 60.0
    on_s: float = 0.0
    off_s: float = 0.0
    prompt_median: float = 400.0
    prompt_sigma: float = 1.0
    output_median: float = 180.0
    output_sigma: float = 0.8
    output_most: int = 2000
    budget: int = 2048
    seats: int = 256
    kv_tokens: int = 2_000_000
    replicas: int = 1
    least_loaded: bool = False
    tensor_parallel: int = 1
    disaggregated: bool = False
    models: int = 1
    conversation: bool = False
    cached_reported: bool = True
    prompts_compared: bool = True
    usage: bool = True
    drafts: int = 0
    acceptance: float = 0.6
    samples: int = 4
    sampled: float = 0.0
    stream_interval: int = 1
    unsized: bool = False
    merged: float = 0.0
    whole: float = 0.0
    cancelled: float = 0.0
    step_noise: float = 0.0
    delay_s: float = 1e-3
    jitter_s: float = 0.0
    reported_steps: bool = False
    period_s: float = 0.1
    lag_s: float = 0.0
    target: tuple[float, float] = (0.03, 0.10)

    def next_arrival(self, now: float, rng: random.Random) -> float:
        """When the next request comes, in seconds."""
        t = now + rng.expovariate(self.rate)
        if self.on_s:
            cycle = self.on_s + self.off_s
            if t % cycle >= self.on_s:
                t = (t // cycle + 1.0) * cycle + rng.expovariate(self.rate)
        return t

    def prompt(self, rng: random.Random, number: int) -> tuple[int, int, int]:
        """Prompt tokens, of these the prefix seen before, and of that what is cached."""
        if not self.conversation:
            tokens = round(rng.lognormvariate(math.log(self.prompt_median), self.prompt_sigma))
            return min(max(tokens, 4), 16_000), 0, 0
        tokens = round(rng.lognormvariate(math.log(10_000), 0.35))
        if number < 6:
            return tokens, 0, 0
        prefix = round(tokens * rng.uniform(0.62, 0.985))
        kept = 1.0 if rng.random() < 0.9 else 0.5  # now and then a part was evicted
        return tokens, prefix, int(prefix * kept) // 16 * 16

    def output(self, rng: random.Random) -> int:
        """Output tokens of one answer."""
        tokens = round(rng.lognormvariate(math.log(self.output_median), self.output_sigma))
        return min(max(tokens, 2), self.output_most)


BETWEEN: Final = Machine(
    overhead_s=1.4e-3, weights_s=8.1e-3, context_s=2.7e-8, token_s=3.4e-5, watts=310.0, memory_watts=150.0,
    compute_watts=420.0, idle_watts=140.0, overlap=2.5,
)  # fmt: skip
SUM: Final = Machine(
    overhead_s=6e-4, weights_s=3.1e-3, context_s=6.1e-8, token_s=1.7e-5, watts=160.0, memory_watts=120.0,
    compute_watts=210.0, idle_watts=61.0, overlap=1.0,
)  # fmt: skip
MAX: Final = Machine()
EXPERTS: Final = Machine(
    overhead_s=1.8e-3, weights_s=2.3e-2, context_s=1.6e-8, token_s=9e-6, watts=240.0, memory_watts=260.0,
    compute_watts=280.0, idle_watts=120.0, overlap=3.0, dense=0.25, expert_share=0.06,
)  # fmt: skip

MEDIUM: Final = Deployment(rate=8.0, target=(0.01, 0.04))
HEAVY: Final = Deployment(rate=20.0, target=(0.02, 0.06))
OVERLOADED: Final = Deployment(rate=45.0, seconds=40.0, seats=512, budget=4096, machine=BETWEEN)
CAPPED: Final = replace(HEAVY, machine=replace(MAX, cap_watts=420.0), target=(0.03, 0.10))
ROUGH: Final = (0.06, 0.20)
EXACT: Final = (0.01, 0.03)

DEPLOYMENTS: Final[dict[str, Deployment]] = {
    "roofline, medium": MEDIUM,
    "roofline, heavy": HEAVY,
    "sum, heavy": replace(HEAVY, machine=SUM),
    "between, heavy": replace(HEAVY, machine=BETWEEN, rate=14.0),
    "overloaded": OVERLOADED,
    "overloaded, maximum": replace(OVERLOADED, machine=MAX, rate=60.0),
    "overloaded, steps reported": replace(OVERLOADED, reported_steps=True, target=EXACT),
    "heavy, steps reported": replace(HEAVY, reported_steps=True, target=EXACT),
    "closed loop, 16": Deployment(in_flight=16, target=(0.02, 0.06)),
    "closed loop, 48": Deployment(in_flight=48, target=(0.02, 0.06), machine=BETWEEN),
    "closed loop, 200": Deployment(in_flight=200, seconds=40.0, target=(0.02, 0.06)),
    "on and off": replace(MEDIUM, rate=14.0, on_s=6.0, off_s=9.0, target=(0.03, 0.10)),
    "counter lags 80 ms": replace(MEDIUM, lag_s=0.08, target=(0.03, 0.10)),
    "power cap": CAPPED,
    "power cap, steps reported": replace(CAPPED, reported_steps=True, target=(0.01, 0.05)),
    "2 replicas": replace(HEAVY, replicas=2, rate=24.0, target=(0.03, 0.10)),
    "4 replicas": replace(HEAVY, replicas=4, rate=36.0, seconds=45.0, target=(0.03, 0.10)),
    "2 replicas of 2 GPUs each": replace(
        HEAVY, replicas=2, tensor_parallel=2, rate=24.0, target=(0.03, 0.10)
    ),
    "2 replicas, 2 ms of jitter": replace(HEAVY, replicas=2, rate=24.0, jitter_s=0.002, target=(0.03, 0.10)),
    "disaggregated, 15 % not streamed": replace(
        MEDIUM, rate=14.0, disaggregated=True, whole=0.15, target=(0.03, 0.10)
    ),
    "disaggregated": replace(MEDIUM, rate=14.0, disaggregated=True, target=(0.03, 0.10)),
    "two models, one GPU": replace(MEDIUM, models=2, other=BETWEEN, target=ROUGH),
    "chunks of 8 tokens": replace(MEDIUM, stream_interval=8, target=(0.03, 0.10)),
    "chunks of 8 tokens, not counted": replace(MEDIUM, stream_interval=8, unsized=True, target=ROUGH),
    "n = 4 in 30 %": replace(MEDIUM, sampled=0.3, target=(0.03, 0.10)),
    "agents, cached not reported": Deployment(
        rate=4.0, conversation=True, cached_reported=False, budget=8192, target=ROUGH
    ),
    "agents, prompts not compared": Deployment(
        rate=4.0, conversation=True, cached_reported=False, prompts_compared=False, budget=8192, target=ROUGH
    ),
    "agents, cached reported": Deployment(rate=4.0, conversation=True, budget=8192, target=(0.03, 0.10)),
    "preemption": replace(HEAVY, kv_tokens=24_000, target=ROUGH),
    "engine 20 ms away": replace(MEDIUM, delay_s=0.02, jitter_s=0.006, target=ROUGH),
    "no usage": replace(MEDIUM, usage=False, target=ROUGH),
    "drafts": replace(MEDIUM, drafts=3, target=EXACT),
    "drafts, experts": replace(MEDIUM, machine=EXPERTS, rate=6.0, drafts=3, target=(0.03, 0.10)),
    "reasoning": Deployment(
        rate=1.2, output_median=2600.0, output_sigma=0.4, output_most=8000, seconds=90.0, target=(0.03, 0.10)
    ),
    "stalled host": replace(MEDIUM, step_noise=0.15, target=(0.03, 0.10)),
    "all at once": replace(
        MEDIUM, replicas=2, rate=16.0, drafts=2, whole=0.15, jitter_s=0.002, cancelled=0.03, merged=0.05,
        target=ROUGH,
    ),
}  # fmt: skip
