"""An OpenAI-compatible server on the simulated engine; shapes as vLLM sends them.

Prompt tokens: the ids of a list, else whitespace-separated words. The answer is made of filler words, one a
token. ``GET /truth`` and ``/truth/requests/{id}`` tell the true joules, for tests.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.simulator import shapes
from proxy.simulator.engine import Engine, Plan
from proxy.simulator.job import Job
from proxy.simulator.metrics import CONTENT_TYPE, Metrics
from proxy.simulator.profile import Profile
from proxy.simulator.requests import BUSY, Asked, RefusedError, read, read_embeddings
from proxy.simulator.runner import Draw, Runner
from proxy.simulator.webapp import Break, FailedError, WebApp, as_json, refused


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that is being answered: its jobs' tokens come through ``tokens`` as (choice, more)."""

    asked: Asked
    head: shapes.Head
    jobs: list[Job]
    tokens: "asyncio.Queue[tuple[int, bool | None]]"


class Server(WebApp[Job, Plan]):
    """The application and its engine; ``port`` after ``start``."""

    def __init__(self, profile: Profile, draw: Draw, fault: Break | None = None) -> None:
        self._model = profile.model
        self._embedding_size = profile.embedding_size
        self.engine = Engine(profile)
        self.metrics = Metrics(profile.model)
        super().__init__(Runner(self.engine, self.metrics, profile.idle_watts, draw), fault)
        self._longest = self.engine.longest

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
        return as_json(shapes.models(self._model, self.now(), self._longest))

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
            asked = read_embeddings(raw, kind, model=self._model, longest=self._longest)
            call = self._call(asked, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
        except RefusedError as error:
            return refused(error)
        try:
            async for _ in self._tokens(call):
                pass
            body = shapes.embeddings(call.head, call.jobs, self._embedding_size or 1, base64=asked.base64)
            return as_json(body, {"X-Request-Id": call.head.id})
        except FailedError:
            return refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
        finally:
            for job in call.jobs:
                self.runner.leave(job)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        raw, kind = await request.read(), request.content_type
        try:
            asked = read(raw, kind, chat=chat, model=self._model, longest=self._longest)
            call = self._call(asked, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
        except RefusedError as error:
            return refused(error)
        try:
            if asked.stream:
                return await self._stream(request, call)
            async for _ in self._tokens(call):
                pass
            body = shapes.whole(call.head, call.jobs, asked.reason)
            return as_json(body, {"X-Request-Id": call.head.id})
        except FailedError:
            return refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
        finally:
            for job in call.jobs:
                self.runner.leave(job)

    def _call(self, asked: Asked, name: str) -> _Call:
        """Submit the jobs of a request; raises :class:`RefusedError` when the queue is full."""
        unique = uuid.uuid4().hex
        prompts = [prompt for prompt in asked.prompts for _ in range(asked.choices)]
        jobs = [
            Job(f"{name}/{unique}/{index}", prompt.tokens, asked.tokens, prompt.chain)
            for index, prompt in enumerate(prompts)
        ]
        if any(self.engine.refusal(job) == "queue" for job in jobs):
            self.metrics.rejected += 1
            raise RefusedError(503, BUSY, "Service Unavailable")
        head = shapes.Head(name, self.now(), self._model, asked.chat, asked.choices)
        call = _Call(asked, head, jobs, asyncio.Queue())
        self.remember(name, [job.joules for job in jobs])
        for index, job in enumerate(jobs):
            self.runner.submit(job, _sink(call.tokens, index))
        return call

    async def _tokens(self, call: _Call) -> AsyncIterator[list[tuple[int, bool]]]:
        """The tokens that came since the last ones were taken, as (choice, more); ends with the last."""
        left = len(call.jobs)
        while left:
            tokens: list[tuple[int, bool]] = []
            index, more = await call.tokens.get()
            while True:
                if more is None:
                    raise FailedError
                tokens.append((index, more))
                left -= not more
                if call.tokens.empty():
                    break
                index, more = call.tokens.get_nowait()
            yield tokens

    async def _stream(self, request: web.Request, call: _Call) -> web.StreamResponse:
        asked = call.asked
        events = shapes.Stream(
            call.head, call.jobs, asked.reason, continuous=asked.continuous_usage, final=asked.include_usage
        )
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Request-Id": call.head.id}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        first = True
        async for tokens in self._tokens(call):
            said = b"".join(events.token(index, more=more) for index, more in tokens)
            await response.write(events.first() + said if first else said)
            first = False
        await response.write(events.last())
        return response


def _sink(queue: "asyncio.Queue[tuple[int, bool | None]]", index: int) -> Callable[[bool | None], None]:
    def sink(more: bool | None) -> None:
        queue.put_nowait((index, more))

    return sink
