"""An OpenAI-compatible server on the simulated engine; shapes as vLLM sends them.

Prompt tokens: the ids of a list, else whitespace-separated words. The answer is made of filler words, one a
token. ``GET /truth`` and ``/truth/requests/{id}`` tell the true joules, for tests.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from proxy.clock import WallAnchor, now_ns
from proxy.simulator import shapes
from proxy.simulator.engine import Engine
from proxy.simulator.job import Job
from proxy.simulator.metrics import CONTENT_TYPE, Metrics
from proxy.simulator.profile import Profile
from proxy.simulator.requests import BUSY, Asked, RefusedError, read
from proxy.simulator.runner import Draw, Runner
from proxy.units import NS_PER_SECOND

_KEEP_TRUTH: Final = 100_000
_MOST_BODY: Final = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _FailedError(Exception):
    """The engine ended before the answer did."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that is being answered: its jobs' tokens come through ``tokens`` as (choice, more)."""

    asked: Asked
    head: shapes.Head
    jobs: list[Job]
    tokens: "asyncio.Queue[tuple[int, bool | None]]"


class Server:
    """The application and its engine; ``port`` after ``start``."""

    def __init__(self, profile: Profile, draw: Draw) -> None:
        self._profile = profile
        self._anchor = WallAnchor.take()
        self.engine = Engine(profile)
        self.metrics = Metrics(profile.model)
        self.runner = Runner(self.engine, self.metrics, profile.idle_watts, draw)
        self._longest = min(profile.limits.max_model_len, profile.limits.kv_tokens)
        self._truths: dict[str, list[Job]] = {}
        self._task: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Run the engine and listen."""
        app = web.Application(middlewares=[_errors], client_max_size=_MOST_BODY)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.get("/metrics", self._metrics),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completions),
                web.get("/truth", self._truth),
                web.get("/truth/requests/{id}", self._truth_of),
            ]
        )
        self._task = asyncio.get_running_loop().create_task(self.runner.run())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop serving and the engine."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=503 if self.runner.failed else 200)

    async def _models(self, _request: web.Request) -> web.Response:
        return _json(shapes.models(self._profile.model, self._now(), self._longest))

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = self.metrics.text(self.engine)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _truth(self, _request: web.Request) -> web.Response:
        runner = self.runner
        joules = {"idle_joules": runner.idle_joules(now_ns()), "busy_joules": runner.busy_joules}
        return _json(msgspec.json.encode(joules | {"late_seconds": runner.late_seconds}))

    async def _truth_of(self, request: web.Request) -> web.Response:
        jobs = self._truths.get(request.match_info["id"])
        if jobs is None:
            return _refused(RefusedError(404, "no such request", "NotFoundError"))
        names = ("static", "prefill", "decode", "context")
        parts = {name: sum(getattr(job.joules, name) for job in jobs) for name in names}
        return _json(msgspec.json.encode({"joules": sum(parts.values()), "parts": parts}))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        raw, kind = await request.read(), request.content_type
        try:
            asked = read(raw, kind, chat=chat, model=self._profile.model, longest=self._longest)
            call = self._call(asked, request.headers.get("X-Request-Id") or uuid.uuid4().hex)
        except RefusedError as error:
            return _refused(error)
        try:
            if asked.stream:
                return await self._stream(request, call)
            async for _ in self._tokens(call):
                pass
            body = shapes.whole(call.head, call.jobs, asked.reason)
            return _json(body, {"X-Request-Id": call.head.id})
        except _FailedError:
            return _refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
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
        head = shapes.Head(name, self._now(), self._profile.model, asked.chat, asked.choices)
        call = _Call(asked, head, jobs, asyncio.Queue())
        self._truths[name] = jobs
        if len(self._truths) > _KEEP_TRUTH:
            del self._truths[next(iter(self._truths))]
        for index, job in enumerate(jobs):
            self.runner.submit(job, _sink(call.tokens, index))
        return call

    async def _tokens(self, call: _Call) -> AsyncIterator[list[tuple[int, bool]]]:
        """The tokens that came since the last ones were taken, as (choice, more); ends with the last."""
        left = len(call.jobs)
        while left:
            came = [await call.tokens.get()]
            with suppress(asyncio.QueueEmpty):
                while True:
                    came.append(call.tokens.get_nowait())
            tokens = [(index, more) for index, more in came if more is not None]
            if len(tokens) < len(came):
                raise _FailedError
            left -= sum(not more for _, more in tokens)
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

    def _now(self) -> int:
        return self._anchor.unix(now_ns()) // NS_PER_SECOND


def _sink(queue: "asyncio.Queue[tuple[int, bool | None]]", index: int) -> Callable[[bool | None], None]:
    def sink(more: bool | None) -> None:
        queue.put_nowait((index, more))

    return sink


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Unknown paths and methods as FastAPI answers them."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        allowed: dict[str, Any] = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        body = msgspec.json.encode({"detail": error.reason})
        return web.Response(status=error.status, body=body, content_type="application/json", headers=allowed)


def _json(body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers=headers)


def _refused(error: RefusedError) -> web.Response:
    return web.Response(status=error.status, body=error.body(), content_type="application/json")
