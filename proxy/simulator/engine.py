"""The engine: continuous batching as vLLM v1 does it, step by step, with the true joules of each request.

A step first decodes one token for every running stream, then computes prompt tokens, first come first
served, in chunks up to the token budget; requests wait while streams or KV cache are at their limit. Steps
cost energy and time linearly (:class:`~proxy.simulator.profile.Costs`), so the Shapley value of a request
in a step is exact: an equal share of the static cost and its own marginal cost. Pure: no clock, no I/O.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from proxy.simulator.profile import Costs, Limits, Profile


@dataclass(slots=True)
class Joules:
    """True joules of one request, by part."""

    static: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    context: float = 0.0

    @property
    def total(self) -> float:
        """Their sum."""
        return self.static + self.prefill + self.decode + self.context


@dataclass(slots=True)
class Job:
    """A request in the engine; ``left`` prompt tokens to compute, ``emitted`` output tokens."""

    name: str
    prompt_tokens: int
    output_tokens: int
    left: int = 0
    emitted: int = 0
    joules: Joules = field(default_factory=Joules)

    def __post_init__(self) -> None:
        self.left = self.prompt_tokens

    @property
    def done(self) -> bool:
        """Whether all its tokens are out."""
        return self.emitted >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """A planned step: who decodes, which prompt chunks are computed, what it costs."""

    decode: tuple[Job, ...]
    prefill: tuple[tuple[Job, int], ...]
    joules: float
    seconds: float


class Engine:
    """Submit and cancel requests, plan a step, finish it."""

    def __init__(self, profile: Profile) -> None:
        self._joules: Costs = profile.joules
        self._seconds: Costs = profile.seconds
        self._limits: Limits = profile.limits
        self._waiting: deque[Job] = deque()
        self._running: OrderedDict[str, Job] = OrderedDict()

    @property
    def running(self) -> int:
        """Requests that hold KV cache."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a request."""
        self._waiting.append(job)

    def cancel(self, job: Job) -> None:
        """Take a request out, wherever it is."""
        if self._running.pop(job.name, None) is None and job in self._waiting:
            self._waiting.remove(job)

    def plan(self) -> Step | None:
        """The next step; None when there is nothing to do."""
        self._admit()
        if not self._running:
            return None
        decode = tuple(job for job in self._running.values() if not job.left)
        budget = self._limits.max_batched_tokens - len(decode)
        prefill = []
        for job in self._running.values():
            chunk = min(job.left, budget)
            if chunk > 0:
                prefill.append((job, chunk))
                budget -= chunk
        context = sum(job.prompt_tokens + job.emitted for job in decode)
        prompt = sum(chunk for _, chunk in prefill)

        def cost(each: Costs) -> float:
            marginal = each.decode * len(decode) + each.context * context + each.prefill * prompt
            return each.static + marginal

        return Step(decode, tuple(prefill), cost(self._joules), cost(self._seconds))

    def _admit(self) -> None:
        """Take waiting requests while streams and KV cache have room."""
        held = sum(job.prompt_tokens + job.output_tokens for job in self._running.values())
        while self._waiting and len(self._running) < self._limits.max_num_seqs:
            needed = self._waiting[0].prompt_tokens + self._waiting[0].output_tokens
            if self._running and held + needed > self._limits.kv_tokens:
                return
            job = self._waiting.popleft()
            held += needed
            self._running[job.name] = job

    def finish(self, step: Step, scale: float) -> list[Job]:
        """Charge a step that took ``scale`` times its energy; the jobs that emitted a token, in order."""
        members = len(step.decode) + len(step.prefill)
        each = self._joules
        for job in step.decode:
            job.joules.static += scale * each.static / members
            job.joules.decode += scale * each.decode
            job.joules.context += scale * each.context * (job.prompt_tokens + job.emitted)
        for job, chunk in step.prefill:
            job.joules.static += scale * each.static / members
            job.joules.prefill += scale * each.prefill * chunk
            job.left -= chunk
        out = [job for job in step.decode if job.name in self._running]
        out += [job for job, _ in step.prefill if not job.left and job.name in self._running]
        for job in out:
            job.emitted += 1
            if job.done:
                del self._running[job.name]
        return out
