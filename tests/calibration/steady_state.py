"""A profile's steady state at a batch size: what a benchmark with that many streams would measure."""

import random
from collections import deque
from dataclasses import dataclass, replace
from math import log
from typing import Final

import numpy as np

from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import Profile
from proxy.simulator.virtual import VirtualEngine
from tests.calibration.models import Workload

_REQUESTS: Final = 100  # at least so many end while measured


@dataclass(frozen=True, slots=True)
class Steady:
    """Measured in virtual time; joules and watts of all devices, latency in seconds."""

    joules_per_token: float
    tokens_per_second: float
    median_itl_seconds: float
    watts: float
    preemptions: int


class _Lengths:
    """Log-normal prompts and answers. The first requests are met in the middle of their answers."""

    def __init__(self, work: Workload, output_tokens: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._sigma = work.sigma
        half = work.sigma**2 / 2
        self._prompt, self._output = log(work.prompt_tokens) - half, log(output_tokens) - half

    def fresh(self) -> tuple[int, int]:
        """Prompt and answer of a request that comes."""
        draw = self._random.lognormvariate
        return max(1, round(draw(self._prompt, self._sigma))), max(1, round(draw(self._output, self._sigma)))

    def met(self) -> tuple[int, int]:
        """Of one met at a random time: long ones more often, part of the answer in its context already."""
        prompt, _ = self.fresh()
        whole = max(1, round(self._random.lognormvariate(self._output + self._sigma**2, self._sigma)))
        done = self._random.randrange(whole)
        return prompt + done, whole - done


def measure(profile: Profile, work: Workload, batch: int, output_tokens: float, seed: int = 0) -> Steady:
    """Keep ``batch`` requests in the engine; measure from when all decode until enough have ended."""
    budget = max(profile.limits.max_batched_tokens, batch)
    limits = replace(profile.limits, max_num_seqs=batch, max_batched_tokens=budget)
    virtual = VirtualEngine(replace(profile, limits=limits))
    lengths = _Lengths(work, output_tokens, seed)
    sent = 0

    def send(prompt: int, output: int) -> Job:
        nonlocal sent
        most = limits.kv_tokens - 16
        prompt = min(prompt, most // 2)
        job = Job(str(sent), prompt, min(output, most - prompt))
        virtual.arrive(job, virtual.now)
        sent += 1
        return job

    coming = deque(send(*lengths.met()) for _ in range(batch))

    def ended() -> int:
        results = virtual.run(None)
        for _ in results:
            send(*lengths.fresh())
        return len(results)

    for _ in range(2 * batch):  # bounded: with a cache too small not all are in at a time
        while coming and coming[0].runs:
            coming.popleft()
        if not coming:
            break
        ended()
    start = _Mark.of(virtual)
    count = 0
    while count < max(_REQUESTS, batch // 2):
        count += ended()
    return start.until(virtual)


@dataclass(frozen=True, slots=True)
class _Mark:
    seconds: float
    joules: float
    tokens: int
    preemptions: int
    step: int

    @classmethod
    def of(cls, virtual: VirtualEngine) -> "_Mark":
        totals = virtual.engine.totals
        return cls(
            virtual.now, virtual.trace.total, totals.output_tokens, totals.preemptions, virtual.engine.step
        )

    def until(self, virtual: VirtualEngine) -> Steady:
        end = _Mark.of(virtual)
        seconds, joules = end.seconds - self.seconds, end.joules - self.joules
        tokens = end.tokens - self.tokens
        steps = slice(self.step, end.step)
        gaps = np.asarray(virtual.trace.ends[steps]) - np.asarray(virtual.trace.starts[steps])
        return Steady(
            joules / tokens,
            tokens / seconds,
            float(np.median(gaps)),
            joules / seconds,
            end.preemptions - self.preemptions,
        )
