"""Continuous batching as in vLLM v1, step by step, with the true joules of each request.

A step decodes one token for every running stream and computes prompt tokens, first come first served, in
chunks up to the token budget. Requests wait while streams or KV cache are at their limit; when the cache is
full, the last admitted stream loses its blocks and computes them again later. Steps cost energy linearly
(:mod:`~proxy.simulator.engine.step_costs`), so the Shapley value of a request in a step is exact: an equal
share of the static cost, and its own marginal cost. Pure: no clock, no I/O. The same engine runs in virtual
time, many equal steps at once, and in real time, one by one. Charging is O(1) per stream, however many
steps it decoded: sums over all steps are kept, and read when a stream joins and when it leaves.
"""

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from proxy.simulator.engine.job import Job
from proxy.simulator.engine.kv_cache import KvCache
from proxy.simulator.engine.step_costs import Floats, StepCosts
from proxy.simulator.profiles.profile import Profile, Speculation

BLOCK: Final = 16  # tokens in a block of KV cache, as vLLM has it


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps, all of the same requests, with the cost of each in seconds and joules.

    There is more than one step only if all of them decode only.
    """

    decode: int
    prefill: tuple[tuple[Job, int], ...]
    context: int
    seconds: Floats | tuple[float, ...]
    joules: Floats | tuple[float, ...]

    def first(self, count: int) -> "Plan":
        """Return the plan of the first ``count`` steps."""
        return Plan(self.decode, self.prefill, self.context, self.seconds[:count], self.joules[:count])


@dataclass(frozen=True, slots=True)
class Finished:
    """Jobs that a plan completed: prompts whose first token came with its last step, and jobs that ended."""

    prompts: tuple[Job, ...]
    done: tuple[Job, ...]


@dataclass(slots=True)
class Totals:
    """Joules charged so far, by part; tokens generated; energy of the device while busy."""

    static: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    context: float = 0.0
    prompt_tokens: int = 0  # computed, again after a preemption too
    output_tokens: int = 0
    preemptions: int = 0
    drafts: int = 0  # of streams, each of several tokens
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class Engine:
    """Scheduler and accounting of one engine: ``submit`` jobs, ``plan`` steps, then ``finish`` them."""

    def __init__(self, profile: Profile) -> None:
        self.costs = StepCosts(profile)
        self.limits = profile.limits
        self.cache = KvCache(profile.limits.kv_tokens // BLOCK)
        self.totals = Totals()
        self.step = 0  # number of the next step
        self._waiting: deque[Job] = deque()
        self._running: OrderedDict[str, Job] = OrderedDict()
        self._prefilling: OrderedDict[str, Job] = OrderedDict()
        self._ends: list[tuple[int, str, Job, int]] = []  # heap: step after the last, job, and when it joined
        self._context = 0  # tokens that the decoding streams read in the next step
        self._needs = [0] * BLOCK  # streams that need a block in steps of this number modulo BLOCK
        self._sums = (0.0, 0.0, 0.0, 0.0)  # static share, token, context, context * step number
        self._planned = False
        self._leaving: list[Job] = []
        self._speculation = profile.speculation
        self._luck = random.Random(0)  # which drafts are accepted

    @property
    def running(self) -> int:
        """Number of jobs in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there are no jobs."""
        return not self._running and not self._waiting

    @property
    def longest(self) -> int:
        """Limit of prompt and output tokens of one job together."""
        ahead = (1 + self._ahead(1)) * BLOCK if self._speculation is not None else 0
        return min(self.limits.max_model_len, self.cache.blocks * BLOCK - ahead)

    def decoding(self) -> Iterator[Job]:
        """Yield the jobs that get a token in every step, the longest running first."""
        return (job for job in self._running.values() if job.joined is not None)

    def emitted(self, job: Job) -> int:
        """Return the number of tokens generated for a job so far."""
        return job.emitted if job.joined is None else job.emitted + self.step - job.joined

    def refusal(self, job: Job) -> str | None:
        """Return why a job cannot be accepted: ``length`` (it never fits), ``queue`` (full), or None."""
        if job.prompt_tokens + job.output_tokens > self.longest:
            return "length"
        most = self.limits.max_waiting
        if most is not None and len(self._waiting) >= most:
            return "queue"
        return None

    def submit(self, job: Job) -> None:
        """Queue a job that ``refusal`` accepts; raises ``ValueError`` for one without tokens."""
        if job.prompt_tokens < 1 or job.output_tokens < 1:
            raise ValueError(f"job {job.name}: at least one prompt token and one output token are needed")
        self._waiting.append(job)

    def cancel(self, job: Job) -> None:
        """Remove a job from queue or batch; one in a planned step is removed at the end of the step."""
        if job.name not in self._running:
            if job in self._waiting:
                self._waiting.remove(job)
        elif self._planned:
            self._leaving.append(job)
        else:
            self._leave(job)

    def plan(self, most: int = 1) -> Plan | None:
        """Return the next steps, at most ``most``; None if no job can run. Call ``finish`` after them."""
        preemptions = self.totals.preemptions
        prefill = self._schedule()
        if self.totals.preemptions > preemptions:
            most = 1  # nobody is admitted in such a step, but perhaps in the next
        decode = len(self._running) - len(self._prefilling)
        if not decode and not prefill:
            return None
        self._planned = True
        if not prefill and (count := self._steady(most)) > 1:
            steps = self.costs.steps(decode, self._context, count)
            return Plan(decode, (), self._context, *steps)
        prompt = sum(chunk for _, chunk in prefill)
        seconds, joules = self.costs.step(decode, self._context, prompt)
        return Plan(decode, tuple(prefill), self._context, (seconds,), (joules,))

    def finish(self, plan: Plan, scale: float = 1.0) -> Finished:
        """Charge a plan whose steps used ``scale`` times their energy; return the jobs that it completed."""
        count = len(plan.seconds)
        decoding = () if self._speculation is None else tuple(self.decoding())
        self._charge(plan, scale)
        if plan.decode:
            self._grow(plan.decode, count)
        self.step += count
        self._planned = False
        if self._speculation is not None:
            for job in decoding:
                self._accept(job, self._speculation)
        computed = [job for job, chunk in plan.prefill if self._computed(job, chunk)]
        for job in self._leaving:
            if job.name in self._running:
                self._leave(job)
        self._leaving.clear()
        prompts = tuple(job for job in computed if job.name in self._running)
        ended = []
        while self._ends and self._ends[0][0] <= self.step:
            _, _, job, joined = heapq.heappop(self._ends)
            if job.joined == joined:
                ended.append(job)
        for job in ended:
            self._leave(job)
        return Finished(prompts, tuple(ended))

    def begun(self, plan: Plan) -> Iterator[Job]:
        """Yield the jobs of a plan that compute prompts."""
        return (job for job, _ in plan.prefill)

    def take(self, plan: Plan, scale: float) -> tuple[list[Job], tuple[Job, ...]]:
        """Finish a plan; return the jobs that got a token in its last step, and those that ended."""
        decoding = list(self.decoding())
        finished = self.finish(plan, scale)
        return [*decoding, *finished.prompts], finished.done

    def _schedule(self) -> list[tuple[Job, int]]:
        """Make room for the decoding streams; return the prompt chunks of the next step and new requests."""
        if not self._running:
            self._rebase()
        admit = True
        while self._reserved() > self.cache.room:
            self._preempt()
            admit = False
        while True:
            chunks = self._started()
            if admit:
                chunks += self._admitted(sum(chunk for _, chunk in chunks))
            if chunks or len(self._running) > len(self._prefilling) or not self._running:
                return chunks
            self._preempt()  # several prompts fill the cache, and none can go on

    def _started(self) -> list[tuple[Job, int]]:
        """Return the chunks of prompts that were begun before."""
        budget = self._budget()
        chunks = []
        for job in self._prefilling.values():
            chunk = min(job.left, budget)
            if chunk > 0 and self._hold(job, job.computed + chunk):
                chunks.append((job, chunk))
                budget -= chunk
        return chunks

    def _admitted(self, taken: int) -> list[tuple[Job, int]]:
        """Admit waiting requests while budget, streams and cache have room; return their chunks."""
        budget = self._budget() - taken
        chunks = []
        while self._waiting and budget > 0 and len(self._running) < self.limits.max_num_seqs:
            job = self._waiting[0]
            self._reuse(job)
            chunk = min(job.left, budget)
            if not self._hold(job, job.computed + chunk):
                self._drop(job)
                break
            self._waiting.popleft()
            self._running[job.name] = self._prefilling[job.name] = job
            if job.scheduled is None:
                job.scheduled, job.cached_tokens = self.step, job.shared * BLOCK
            chunks.append((job, chunk))
            budget -= chunk
        return chunks

    def _budget(self) -> int:
        each = 1 if self._speculation is None else 1 + self._speculation.tokens
        return self.limits.max_batched_tokens - each * (len(self._running) - len(self._prefilling))

    def _reserved(self) -> int:
        """Return the number of blocks that the decoding streams may need in the next step."""
        return self._needs[self.step % BLOCK] + self._ahead(len(self._running) - len(self._prefilling))

    def _ahead(self, streams: int) -> int:
        """Return the largest number of blocks for drafted tokens."""
        return 0 if self._speculation is None else streams * -(-self._speculation.tokens // BLOCK)

    def _accept(self, job: Job, how: Speculation) -> None:
        """Draw and count the accepted draft tokens of a decoding job in the step that has ended."""
        most = min(how.tokens, job.output_tokens - self.emitted(job))
        extra = 0
        while extra < most and self._luck.random() < how.acceptance:
            extra += 1
        self.totals.drafts += 1
        self.totals.drafted_tokens += how.tokens
        self.totals.accepted_tokens += extra
        self.totals.output_tokens += extra
        job.gained = 1 + extra
        if not extra:
            return
        self._settle(job)
        job.emitted += extra
        job.runs.extend([(self.step - 1, self.step)] * extra)
        more = -(-(job.prompt_tokens + job.emitted - 1) // BLOCK) - job.shared - job.private
        if more > 0:
            self.cache.take(more)  # there is room: see _reserved
            job.private += more
        self._join(job)

    def _preempt(self) -> None:
        """Preempt the job that was admitted last: it frees its blocks and becomes the first of the queue."""
        _, job = self._running.popitem()
        self._settle(job)
        self._prefilling.pop(job.name, None)
        self._drop(job)
        job.preemptions += 1
        self.totals.preemptions += 1
        self._waiting.appendleft(job)

    def _reuse(self, job: Job) -> None:
        """Reuse the leading blocks that are cached; at least one token is always computed."""
        most = (job.left - 1) // BLOCK
        job.shared = self.cache.known(job.chain[:most])
        self.cache.share(job.chain[: job.shared])
        job.left -= job.shared * BLOCK

    def _hold(self, job: Job, tokens: int) -> bool:
        """Allocate blocks for the first ``tokens`` tokens; return False if there is no room for them."""
        more = -(-tokens // BLOCK) - job.shared - job.private
        if more > 0:
            if more + self._reserved() > self.cache.room:
                return False
            self.cache.take(more)
            job.private += more
        return True

    def _drop(self, job: Job) -> None:
        """Free all blocks of a job, which must be computed again."""
        self.cache.give(job.private)
        self.cache.release(job.chain[: job.shared])
        job.private = job.shared = 0
        job.left = job.prompt_tokens + job.emitted

    def _steady(self, most: int) -> int:
        """Return for how many steps all jobs only decode, one token each."""
        if self._speculation is not None:
            return 1
        count = min(most, self._ends[0][0] - self.step)
        room = self.cache.room
        per_round = sum(self._needs)
        if per_round and (rounds := room // per_round) * BLOCK < count:
            taken = rounds * per_round
            steps = rounds * BLOCK
            while taken + (need := self._needs[(self.step + steps) % BLOCK]) <= room:
                taken += need
                steps += 1
            count = min(count, steps)
        return max(count, 1)

    def _grow(self, decode: int, count: int) -> None:
        """Add ``count`` steps to blocks and context of the decoding streams."""
        rounds, rest = divmod(count, BLOCK)
        more = rounds * sum(self._needs) + sum(self._needs[(self.step + i) % BLOCK] for i in range(rest))
        self.cache.take(more)  # there is room: see _schedule and _steady
        self._context += decode * count

    def _charge(self, plan: Plan, scale: float) -> None:
        """Add a plan's joules to the sums of the decoding streams, and to the prompts in it."""
        prompt = sum(chunk for _, chunk in plan.prefill)
        shares = self.costs.shares(plan.decode, prompt)
        modelled = shares.static + shares.token * plan.decode + shares.prompt * prompt
        members, count = plan.decode + len(plan.prefill), len(plan.seconds)
        if count == 1:
            each = scale * plan.joules[0] / (modelled + shares.context * plan.context)
            total, moment = each, each * self.step
        else:
            number = np.arange(count)
            scales = scale * np.asarray(plan.joules)
            scales /= modelled + shares.context * (plan.context + plan.decode * number)
            total = each = float(scales.sum())
            moment = float(scales @ (self.step + number))
        static, token, context, weighted = self._sums
        self._sums = (
            static + shares.static * total / members,
            token + shares.token * total,
            context + shares.context * total,
            weighted + shares.context * moment,
        )
        for job, chunk in plan.prefill:
            job.joules.static += shares.static * each / members
            job.joules.prefill += shares.prompt * each * chunk
        offset = self.step * plan.decode - plan.context
        self.totals.static += shares.static * total
        self.totals.decode += shares.token * total * plan.decode
        self.totals.context += shares.context * (plan.decode * moment - offset * total)
        self.totals.prefill += shares.prompt * each * prompt
        self.totals.prompt_tokens += prompt
        self.totals.output_tokens += plan.decode * count

    def _computed(self, job: Job, chunk: int) -> bool:
        """Add a computed chunk; return whether it was the last of the prompt, which also yields a token."""
        job.left -= chunk
        if job.left:
            return False
        del self._prefilling[job.name]
        if not job.emitted:
            more = self.cache.publish(job.chain[job.shared :])
            job.shared, job.private = job.shared + more, job.private - more
        job.emitted += 1
        job.gained = 1
        self.totals.output_tokens += 1
        job.runs.append((self.step - 1, self.step))
        self._join(job)
        return True

    def _join(self, job: Job) -> None:
        """Start decoding with the next step."""
        job.joined, job.marks = self.step, self._sums
        tokens = job.prompt_tokens + job.emitted
        self._context += tokens
        # Its next token goes where tokens - 1 end; it needs a block when those fill theirs.
        self._needs[(self.step - (tokens - 1)) % BLOCK] += 1
        heapq.heappush(self._ends, (self.step + job.output_tokens - job.emitted, job.name, job, self.step))

    def _settle(self, job: Job) -> None:
        """Stop decoding: charge the energy of its steps, count its tokens and blocks."""
        if job.joined is None:
            return
        count = self.step - job.joined
        tokens = job.prompt_tokens + job.emitted
        self._context -= tokens + count
        self._needs[(job.joined - (tokens - 1)) % BLOCK] -= 1
        static, token, context, moment = (now - then for now, then in zip(self._sums, job.marks, strict=True))
        job.joules.static += static
        job.joules.decode += token
        job.joules.context += moment - (job.joined - tokens) * context
        job.emitted += count
        job.private = max(-(-(tokens - 1 + count) // BLOCK) - job.shared, job.private)
        start, _ = job.runs[-1]
        job.runs[-1] = (start, self.step)
        job.joined = None

    def _leave(self, job: Job) -> None:
        """Remove a job that has ended or was cancelled: settle it and free its blocks."""
        self._settle(job)
        del self._running[job.name]
        prefilling = self._prefilling.pop(job.name, None) is not None
        chain = job.chain
        if job.answered is not None and job.emitted and not prefilling:
            chain = job.answered(job.emitted - 1)  # the keys of its last token were never computed
            more = self.cache.publish(chain[job.shared :])
            job.shared, job.private = job.shared + more, job.private - more
        self.cache.give(job.private)
        self.cache.release(chain[: job.shared])
        job.private = job.shared = 0

    def _rebase(self) -> None:
        """Restart the running sums while no job decodes, so that they stay small and exact."""
        self._sums = (0.0, 0.0, 0.0, 0.0)
        self._ends.clear()
