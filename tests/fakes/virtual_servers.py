"""Servers in virtual time and the client that runs a complete search against them.

A server here is a small queueing model. Its knee (the highest Poisson rate that keeps the SLO for ever) is
known from a formula or from `long_run_share`, which simulates one rate for as long as it takes. The search
sees what a client sees: stamps that lie in the future are hidden.
"""

import bisect
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loadgen.config.slo import Objective
from loadgen.results.records import Knee, Record
from loadgen.search.knee import Tally
from loadgen.search.runner import POLL_INTERVAL_S, SETTLE_LIMIT_S, SETTLE_POLL_S
from loadgen.search.strategy import Probe, Search
from proxy.units import NS_PER_SECOND

_BLOCK = 4096


@dataclass(slots=True)
class Request:
    """One request; seconds of the server's clock, infinite while unknown."""

    at: float
    first: float = np.inf
    end: float = np.inf
    failed: bool = False
    tokens: int = 1


class Draws:
    """Random numbers in blocks: one call of numpy for each is slow."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._exponential: list[float] = []
        self._normal: list[float] = []

    def exponential(self) -> float:
        """Return a draw of mean 1."""
        if not self._exponential:
            self._exponential = self._rng.exponential(1.0, _BLOCK).tolist()
        return self._exponential.pop()

    def lognormal(self, cv: float) -> float:
        """Return a draw of mean 1 and coefficient of variation ``cv``."""
        if not self._normal:
            self._normal = self._rng.standard_normal(_BLOCK).tolist()
        variance = float(np.log1p(cv * cv))
        return float(np.exp(self._normal.pop() * variance**0.5 - variance / 2))


class QueueServer:
    """First come, first served, by ``slots`` servers; the first token comes ``first_s`` into the service.

    ``cv`` is the coefficient of variation of service times: 0 is constant, 1 is exponential, anything else
    is lognormal. The server stops for ``stall_s`` after a time that is exponential of mean ``stall_every_s``;
    the first ``cold`` requests take ``cold_s`` longer (lazy compilation).
    """

    def __init__(
        self, slots: int = 32, service_s: float = 0.68, first_s: float = 0.05, cv: float = 0.0,
        stall_every_s: float = 0.0, stall_s: float = 0.0, cold: int = 0, cold_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.slots, self.service_s, self.first_s, self.cv = slots, service_s, first_s, cv
        self.stall_every_s, self.stall_s, self.cold, self.cold_s = stall_every_s, stall_s, cold, cold_s
        self._free = [0.0] * slots

    def begin(self, draws: Draws) -> None:
        """Take the source of random numbers before the first request."""
        self._draws = draws
        self._stall_at = self.stall_every_s * draws.exponential() if self.stall_every_s else np.inf

    def arrive(self, request: Request) -> None:
        """Accept a request; its times are known at once."""
        while self._stall_at <= request.at:
            resumes = self._stall_at + self.stall_s
            self._free = [max(free, resumes) for free in self._free]
            heapq.heapify(self._free)
            self._stall_at = resumes + self.stall_every_s * self._draws.exponential()
        begin = max(request.at, heapq.heappop(self._free))
        service = self.service_s * self._factor() + (self.cold_s if self.cold > 0 else 0.0)
        self.cold -= 1
        heapq.heappush(self._free, begin + service)
        request.first, request.end = begin + min(self.first_s, service), begin + service

    def advance(self, until: float) -> None:
        """Nothing to do: see ``arrive``."""

    def _factor(self) -> float:
        if self.cv == 0:
            return 1.0
        return self._draws.exponential() if self.cv == 1 else self._draws.lognormal(self.cv)


class TokenBucket:
    """A rate limiter before a server without a queue: HTTP 429 where the bucket is empty."""

    def __init__(self, rate: float, burst: float, service_s: float) -> None:
        self.rate, self.burst, self.service_s = rate, burst, service_s
        self._tokens, self._at = burst, 0.0

    def begin(self, draws: Draws) -> None:
        """Nothing here is random."""

    def arrive(self, request: Request) -> None:
        """Serve the request or refuse it."""
        self._tokens = min(self.burst, self._tokens + (request.at - self._at) * self.rate)
        self._at = request.at
        request.failed = self._tokens < 1
        if not request.failed:
            self._tokens -= 1
        request.first = request.end = request.at + (0.002 if request.failed else self.service_s)

    def advance(self, until: float) -> None:
        """Nothing to do: see ``arrive``."""


class BatchingEngine:
    """Continuous batching with chunked prefill, a step's time by the roofline.

    A step takes ``base_s`` (reading the weights) plus ``per_sequence_s`` for each running sequence (reading
    its KV cache) or the compute of its tokens, whichever is longer.
    """

    def __init__(
        self, base_s: float, per_sequence_s: float, token_s: float, sequences: int,
        prompt: tuple[float, float], output: tuple[float, float], chunk: int = 2048,
    ) -> None:  # fmt: skip
        self.base_s, self.per_sequence_s, self.token_s, self.sequences = (
            base_s,
            per_sequence_s,
            token_s,
            sequences,
        )
        self.prompt, self.output, self.chunk = prompt, output, chunk
        self._waiting: deque[tuple[Request, int]] = deque()
        self._done = 0
        self._running = 0
        self._step = 0
        self._finish: dict[int, list[Request]] = {}
        self._now = 0.0
        self._arrivals: deque[Request] = deque()

    def begin(self, draws: Draws) -> None:
        """Take the source of random numbers before the first request."""
        self._draws = draws

    def arrive(self, request: Request) -> None:
        """Accept a request, whose times ``advance`` fills in."""
        mean, cv = self.output
        request.tokens = max(2, round(mean * self._draws.lognormal(cv)))
        self._arrivals.append(request)

    def advance(self, until: float) -> None:
        """Run steps as long as they begin before ``until``."""
        while self._now < until:
            while self._arrivals and self._arrivals[0].at <= self._now:
                mean, cv = self.prompt
                prompt = max(1, round(mean * self._draws.lognormal(cv)))
                self._waiting.append((self._arrivals.popleft(), prompt))
            if not self._running and not self._waiting:
                if not self._arrivals or self._arrivals[0].at >= until:
                    self._now = until
                    return
                self._now = self._arrivals[0].at
                continue
            self._one_step()

    def _one_step(self) -> None:
        budget, begun, tokens = self.chunk - self._running, list[Request](), self._running
        while self._waiting and budget > 0 and self._running + len(begun) < self.sequences:
            request, prompt = self._waiting[0]
            part = min(budget, prompt - self._done)
            budget, tokens, self._done = budget - part, tokens + part, self._done + part
            if self._done < prompt:
                break
            self._waiting.popleft()
            self._done = 0
            begun.append(request)
        batch = self._running + len(begun)
        self._now += max(self.base_s + self.per_sequence_s * batch, self.token_s * tokens)
        self._step += 1
        for request in begun:
            request.first = self._now
            self._finish.setdefault(self._step + request.tokens - 1, []).append(request)
        ended = self._finish.pop(self._step, [])
        for request in ended:
            request.end = self._now
        self._running = batch - len(ended)


Server = QueueServer | TokenBucket | BatchingEngine


@dataclass(slots=True)
class VirtualClient:
    """Runs a search against ``server``: what the real shell does, in virtual time."""

    server: Server
    seed: int = 0
    now_s: float = 0.0
    sent: int = 0
    _draws: Draws = field(init=False)
    _all: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draws = Draws(np.random.default_rng([self.seed, 1]))
        self.server.begin(Draws(np.random.default_rng([self.seed, 2])))

    def find(self, search: Search) -> tuple[Knee, list[Tally]]:
        """Run a complete search."""
        while isinstance(asked := search.next(), Probe):
            before = self.now_s
            self._settle(asked.settle_to)
            start = self.now_s
            requests = self._closed(search, asked) if search.limits.whole else self._open(search, asked)
            self._all = [one for one in self._all if one.end > self.now_s] + requests
            search.done(asked, self.now_s - start, self._seen(requests, start), self.now_s - before)
        return asked, search.tallies

    def _settle(self, most: int | None) -> None:
        deadline = self.now_s + SETTLE_LIMIT_S
        while most is not None and sum(one.end > self.now_s for one in self._all) > most:
            if self.now_s > deadline:
                return
            self.now_s += SETTLE_POLL_S
            self.server.advance(self.now_s)

    def _open(self, search: Search, probe: Probe) -> list[Request]:
        start, requests = self.now_s, list[Request]()
        at = start + self._draws.exponential() / probe.level
        while not self._over(search, probe, start, requests):
            self.now_s = min(self.now_s + POLL_INTERVAL_S, start + probe.max_s)
            while at < self.now_s:
                requests.append(self._send(at))
                at += self._draws.exponential() / probe.level
            self.server.advance(self.now_s)
        return requests

    def _closed(self, search: Search, probe: Probe) -> list[Request]:
        """Users in flight; only for servers that know the end of a request when it arrives."""
        start, requests = self.now_s, list[Request]()
        users = [start] * int(probe.level)
        while not self._over(search, probe, start, requests):
            self.now_s += POLL_INTERVAL_S
            while users[0] < self.now_s:
                requests.append(self._send(users[0]))
                heapq.heapreplace(users, requests[-1].end)
        return requests

    def _send(self, at: float) -> Request:
        self.sent += 1
        self.server.arrive(request := Request(at))
        return request

    def _over(self, search: Search, probe: Probe, start: float, requests: list[Request]) -> bool:
        elapsed = self.now_s - start
        return elapsed > probe.max_s - 1e-6 or search.stop_now(probe, elapsed, self._seen(requests, start))

    def _seen(self, requests: list[Request], start: float) -> list[Record]:
        """Return the records of a client at this time: later stamps are hidden."""
        known = requests[: bisect.bisect_right(requests, self.now_s, key=lambda one: one.at)]
        return [self._record(index, one, start) for index, one in enumerate(known)]

    def _record(self, index: int, one: Request, start: float) -> Record:
        due = round((one.at - start) * NS_PER_SECOND)
        first, end = (
            None if at > self.now_s else round((at - start) * NS_PER_SECOND) for at in (one.first, one.end)
        )
        refused = one.failed and end is not None
        return Record(
            point=0, index=index, id="", scheduled_ns=due, dispatched_ns=due, sent_ns=due, first_ns=first,
            end_ns=end, outputs_ns=[] if first is None else [first], counts=[] if first is None else [1],
            output_tokens=one.tokens, error="HTTP 429" if refused else None,
        )  # fmt: skip


def long_run_share(
    server: Server, rate: float, requests: int, slo: Sequence[Objective], seed: int = 0
) -> float:
    """Return the share outside the objective that most are outside of, after a warm-up of a tenth."""
    arrivals = np.random.default_rng([seed, 3]).exponential(1 / rate, requests).cumsum().tolist()
    server.begin(Draws(np.random.default_rng([seed, 4])))
    sent = []
    for at in arrivals:
        server.advance(at)
        server.arrive(request := Request(at))
        sent.append(request)
    server.advance(arrivals[-1] + 60)
    counted = sent[requests // 10 :]
    return max(sum(_outside(one, objective) for one in counted) / len(counted) for objective in slo)


def _outside(one: Request, objective: Objective) -> bool:
    tpot = (one.end - one.first) / max(1, one.tokens - 1)
    found = {"ttft": one.first - one.at, "e2e": one.end - one.at, "tpot": tpot}[objective.metric]
    return one.failed or found > objective.limit_seconds
