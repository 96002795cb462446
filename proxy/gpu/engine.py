"""A continuous-batching engine: decoding first, then chunks of prompts under a token budget.

The scheduler is that of vLLM v1 in its simplest form: no preemption (the cache has a slot for each running
request), no prefix cache. ``step`` runs one forward pass to its end.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.gpu.composition import Entry, Work
from proxy.gpu.device import Device


class Runner(Protocol):
    """A model: computes a step and returns the next token of each entry."""

    slots: int
    length: int

    def forward(self, entries: Sequence[Entry]) -> list[int]:
        """Compute one step."""


@dataclass(slots=True, eq=False)
class Request:
    """A request and its progress; ``output`` tokens are generated, without an end of sequence."""

    name: str
    prompt: Sequence[int]
    output: int
    computed: int = 0  # tokens in the cache
    emitted: list[int] = field(default_factory=list)
    slot: int = -1
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be generated."""
        return self.cancelled or len(self.emitted) >= self.output


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was run: who was in it with which work, and when."""

    start_ns: int
    end_ns: int
    members: tuple[str, ...]
    works: tuple[Work, ...]
    emitted: tuple[Request, ...]


class Engine:
    """A queue, the running requests and their slots in the cache."""

    def __init__(self, device: Device, runner: Runner, budget: int = 2048) -> None:
        """``budget``: tokens that are computed in a step, at most."""
        self._device, self._runner, self._budget = device, runner, budget
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._free = list(range(runner.slots - 1, -1, -1))

    @property
    def load(self) -> int:
        """Requests in the engine or in its queue."""
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Queue a request; raise ``ValueError`` if it does not fit into the cache."""
        if len(request.prompt) + request.output > self._runner.length:
            raise ValueError(
                f"{len(request.prompt)} prompt and {request.output} output tokens exceed the context length "
                f"of {self._runner.length}"
            )
        self._waiting.append(request)

    def step(self) -> Step | None:
        """Run one step; None if there is nothing to do."""
        self._drop_cancelled()
        planned = self._plan()
        if not planned:
            return None
        entries = [entry for _, entry in planned]
        works = tuple(Work(len(entry.tokens), entry.context) for entry in entries)
        tokens: list[int] = []
        start, end = self._device.step(works, lambda: tokens.extend(self._runner.forward(entries)))
        emitted = []
        for index, (request, entry) in enumerate(planned):
            request.computed += len(entry.tokens)
            if request.computed >= len(request.prompt):
                request.emitted.append(tokens[index] if tokens else 0)
                emitted.append(request)
        self._release([request for request in emitted if request.finished])
        return Step(start, end, tuple(r.name for r, _ in planned), works, tuple(emitted))

    def _plan(self) -> list[tuple[Request, Entry]]:
        decoding = [r for r in self._running if r.emitted]
        planned = [(r, Entry(r.slot, r.emitted[-1:], r.computed)) for r in decoding]
        budget = self._budget - len(planned)
        while (
            self._waiting
            and self._free
            and budget > sum(len(r.prompt) for r in self._running if not r.emitted)
        ):
            request = self._waiting.popleft()
            request.slot = self._free.pop()
            self._running.append(request)
        for request in self._running:
            left = len(request.prompt) - request.computed
            if left > 0 and budget > 0:
                chunk = request.prompt[request.computed : request.computed + min(left, budget)]
                planned.append((request, Entry(request.slot, chunk, request.computed)))
                budget -= len(chunk)
        return planned

    def _drop_cancelled(self) -> None:
        self._waiting = deque(r for r in self._waiting if not r.cancelled)
        self._release([r for r in self._running if r.cancelled])

    def _release(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._running.remove(request)
            self._free.append(request.slot)
