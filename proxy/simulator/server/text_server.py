"""Serve OpenAI's API for text on the simulated engine, in the formats of vLLM.

Prompt tokens are the ids of a list, else whitespace-separated words. The response consists of filler words,
one for each token. ``GET /truth`` and ``/truth/requests/{id}`` return the true joules, for tests.
"""

import asyncio
import uuid
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web

from proxy.simulator.engine.batching import Engine, Plan
from proxy.simulator.engine.job import Job
from proxy.simulator.gpu.board import Board
from proxy.simulator.profiles.profile import Profile
from proxy.simulator.server import responses
from proxy.simulator.server.metrics import CONTENT_TYPE, Metrics
from proxy.simulator.server.output import Outlet, StreamOutlet
from proxy.simulator.server.runner import Draw, Runner
from proxy.simulator.server.text_requests import (
    BUSY,
    Prompt,
    RefusedError,
    TextRequest,
    read,
    read_embeddings,
)
from proxy.simulator.server.web_app import Break, FailedError, WebApp, as_json, refused

if TYPE_CHECKING:
    from proxy.simulator.server.spans import EngineSpans


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that is being answered; its jobs' tokens go to ``outlet``."""

    text_request: TextRequest
    head: responses.Head
    jobs: list[Job]
    outlet: Outlet


@dataclass(frozen=True, slots=True)
class _StreamCall(_Call):
    """One whose tokens are sent as they come."""

    outlet: StreamOutlet
    events: responses.Stream


class Server(WebApp[Job, Plan]):
    """The application and its engine; ``port`` after ``start``."""

    def __init__(
        self, profile: Profile, draw: Draw, fault: Break | None = None, board: Board | None = None
    ) -> None:
        self._model = profile.model
        self._embedding_size = profile.embedding_size
        self.engine = Engine(profile)
        self.metrics = Metrics(profile.model)
        super().__init__(Runner(self.engine, self.metrics, board or Board(profile.idle_watts), draw), fault)
        self._longest = self.engine.longest
        self._spans: EngineSpans | None = None

    def trace(self, endpoint: str) -> None:
        """Send a span of every request from now on; raises nothing when the collector is away."""
        from proxy.simulator.server.spans import EngineSpans, Traced  # noqa: PLC0415 - OpenTelemetry only where used

        self._spans = EngineSpans(endpoint)
        self.runner.watch(Traced(self.metrics, self._spans))

    async def close(self) -> None:
        """Stop serving and the engine; send the last spans."""
        await super().close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    def routes(self) -> list[web.RouteDef]:
        """Chat, completions, models, metrics."""
        common = [web.get("/v1/models", self._models), web.get("/metrics", self._metrics)]
        if self._embedding_size is not None:
            return [*common, web.post("/v1/embeddings", self._embeddings)]
        return [
            *common,
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
        ]

    async def _models(self, _request: web.Request) -> web.Response:
        return as_json(responses.models(self._model, self.now(), self._longest))

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = self.metrics.text(self.engine)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _embeddings(self, request: web.Request) -> web.Response:
        raw, kind = await request.read(), request.content_type
        try:
            text_request = read_embeddings(raw, kind, model=self._model, longest=self._longest)
            call = self._call(text_request, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
        except RefusedError as error:
            return refused(error)
        try:
            await _end(call)
            body = responses.embeddings(
                call.head, call.jobs, self._embedding_size or 1, base64=text_request.base64
            )
            return as_json(body, {"X-Request-Id": call.head.id})
        except FailedError:
            return refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
        finally:
            for job in call.jobs:
                self.runner.leave(job)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        raw, kind = await request.read(), request.content_type
        try:
            text_request = read(raw, kind, chat=chat, model=self._model, longest=self._longest)
            call = self._call(text_request, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
            if self._spans is not None:
                for job in call.jobs:
                    self._spans.begin(job, call.head.public, text_request, request.headers.get("traceparent"))
        except RefusedError as error:
            return refused(error)
        try:
            if isinstance(call, _StreamCall):
                return await _stream(request, call)
            await _end(call)
            body = responses.complete_body(call.head, call.jobs, text_request.reason)
            return as_json(body, {"X-Request-Id": call.head.id})
        except FailedError:
            return refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
        finally:
            for job in call.jobs:
                self.runner.leave(job)
                if self._spans is not None:
                    self._spans.forget(job)

    def _call(self, text_request: TextRequest, name: str) -> _Call:
        """Submit the jobs of a request; raises :class:`RefusedError` when the queue is full."""
        unique = uuid.uuid4().hex
        prompts = [prompt for prompt in text_request.prompts for _ in range(text_request.choices)]
        jobs = [
            Job(
                f"{name}/{unique}/{index}",
                prompt.tokens,
                text_request.tokens,
                prompt.chain,
                partial(_answered, prompt),
            )
            for index, prompt in enumerate(prompts)
        ]
        if any(self.engine.refusal(job) == "queue" for job in jobs):
            self.metrics.rejected += 1
            raise RefusedError(503, BUSY, "Service Unavailable")
        head = responses.Head(name, self.now(), self._model, text_request.chat, text_request.choices)
        call = (
            _streamed(text_request, head, jobs)
            if text_request.stream
            else _Call(text_request, head, jobs, Outlet(len(jobs)))
        )
        self.remember(name, [job.joules for job in jobs])
        for index, job in enumerate(jobs):
            self.runner.submit(job, call.outlet.sink(index))
        return call


def _answered(prompt: Prompt, count: int) -> tuple[Hashable, ...]:
    return prompt.answered(responses.words(count))


async def _end(call: _Call) -> None:
    """Until the last token; raises :class:`FailedError`."""
    if not await call.outlet.ended:
        raise FailedError


def _streamed(text_request: TextRequest, head: responses.Head, jobs: list[Job]) -> _StreamCall:
    events = responses.Stream(
        head,
        jobs,
        text_request.reason,
        continuous=text_request.continuous_usage,
        final=text_request.include_usage,
    )
    return _StreamCall(text_request, head, jobs, StreamOutlet(events, jobs), events)


async def _stream(request: web.Request, call: _StreamCall) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Request-Id": call.head.id}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if request.transport is not None:
        call.outlet.open(request.transport, chunked=request.version >= HttpVersion11)
        await _end(call)
        await response.write(call.events.last())
    return response
