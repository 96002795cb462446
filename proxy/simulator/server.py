"""An OpenAI-compatible server on the simulated engine; shapes as vLLM sends them.

Prompt tokens: the ids of a list, else whitespace-separated words. The answer is made of filler words, one a
token. ``GET /truth/requests/{id}`` tells the true joules, for tests.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import web

from proxy.clock import WallAnchor, now_ns
from proxy.simulator.job import Job
from proxy.simulator.profile import Profile
from proxy.simulator.runner import Draw, Runner, StoppedError
from proxy.units import NS_PER_SECOND

DEFAULT_TOKENS: Final = 128
_WORDS: Final = ("joule", "watt", "token", "batch", "prompt", "cache", "kernel", "counter")
_KEEP_TRUTH: Final = 100_000


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message] | None = None
    prompt: str | list[int] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, as this server counts them."""
        if isinstance(self.prompt, list):
            return max(len(self.prompt), 1)
        texts = [self.prompt or ""]
        for message in self.messages or []:
            content = message.content
            texts += (
                [content] if isinstance(content, str) else [str(p.get("text", "")) for p in content or []]
            )
        return max(sum(len(text.split()) for text in texts), 1)


class Server:
    """The application and its engine; ``port`` after ``start``."""

    def __init__(self, profile: Profile, draw: Draw) -> None:
        self._profile = profile
        self._anchor = WallAnchor.take()
        self.runner = Runner(profile, draw)
        self._jobs: dict[str, Job] = {}
        self._task: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Run the engine and listen."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completions),
                web.post("/v1/embeddings", self._embeddings),
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
        return web.Response()

    async def _models(self, _request: web.Request) -> web.Response:
        model = {
            "id": self._profile.model,
            "object": "model",
            "created": self._now(),
            "owned_by": "simulated",
        }
        return _json({"object": "list", "data": [model]})

    async def _embeddings(self, _request: web.Request) -> web.Response:
        return _error(404, "The model does not support Embeddings API", "NotFoundError")

    async def _truth(self, _request: web.Request) -> web.Response:
        runner = self.runner
        return _json({"idle_joules": runner.idle_joules(now_ns()), "busy_joules": runner.busy_joules})

    async def _truth_of(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        if job is None:
            return _error(404, "no such request", "NotFoundError")
        joules = {name: getattr(job.joules, name) for name in ("static", "prefill", "decode", "context")}
        return _json({"joules": job.joules.total, "parts": joules})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "chatcmpl", "chat.completion")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "cmpl", "text_completion")

    async def _answer(self, request: web.Request, prefix: str, kind: str) -> web.StreamResponse:
        try:
            body = msgspec.json.decode(await request.read(), type=_Body)
        except msgspec.MsgspecError as error:
            return _error(400, f"1 validation error: {error}", "Bad Request")
        if body.model != self._profile.model:
            text = f"The model `{body.model}` does not exist. Valid aliases: {self._profile.model}."
            return _error(404, text, "NotFoundError", "model")
        wanted = next(
            (n for n in (body.max_completion_tokens, body.max_tokens) if n is not None), DEFAULT_TOKENS
        )
        if wanted < 1:
            return _error(
                400, f"max_tokens must be at least 1, got {wanted}.", "BadRequestError", "max_tokens"
            )
        name = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        job = Job(f"{name}/{uuid.uuid4().hex}", body.prompt_tokens, wanted)
        self._remember(name, job)
        head = {"id": f"{prefix}-{name}", "object": kind, "created": self._now(), "model": body.model}
        if body.stream:
            return await self._stream(request, body, job, head)
        text = "".join([word async for word, _ in self._words(job)])
        choice = {"index": 0, "finish_reason": "length"} | (
            {"message": {"role": "assistant", "content": text}} if prefix == "chatcmpl" else {"text": text}
        )
        return _json({**head, "choices": [choice], "usage": _usage(job)})

    def _remember(self, name: str, job: Job) -> None:
        self._jobs[name] = job
        if len(self._jobs) > _KEEP_TRUTH:
            del self._jobs[next(iter(self._jobs))]

    async def _words(self, job: Job) -> AsyncIterator[tuple[str, bool]]:
        """A word for each token, and whether more come; the job is cancelled when its reader goes."""
        queue = self.runner.submit(job)
        try:
            number = 0
            more: bool | None = True
            while more:
                if (more := await queue.get()) is None:
                    raise StoppedError
                yield _WORDS[number % len(_WORDS)] + " ", more
                number += 1
        finally:
            self.runner.leave(job)

    async def _stream(
        self, request: web.Request, body: _Body, job: Job, head: dict[str, Any]
    ) -> web.StreamResponse:
        chat = head["object"] == "chat.completion"
        head = head | {"object": "chat.completion.chunk"} if chat else head
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        if chat:
            await response.write(_event(head, {"delta": {"role": "assistant", "content": ""}}))
        words = self._words(job)
        try:
            async for word, more in words:
                reason = None if more else "length"
                choice = {"delta": {"content": word}} if chat else {"text": word}
                await response.write(_event(head, choice, reason))
        finally:
            await words.aclose()  # type: ignore[attr-defined]
        if body.stream_options and body.stream_options.include_usage:
            await response.write(
                b"data: " + msgspec.json.encode({**head, "choices": [], "usage": _usage(job)}) + b"\n\n"
            )
        await response.write(b"data: [DONE]\n\n")
        return response

    def _now(self) -> int:
        return self._anchor.unix(now_ns()) // NS_PER_SECOND


def _event(head: dict[str, Any], choice: dict[str, Any], reason: str | None = None) -> bytes:
    chunk = {**head, "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": reason}]}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _usage(job: Job) -> dict[str, int]:
    return {
        "prompt_tokens": job.prompt_tokens,
        "completion_tokens": job.emitted,
        "total_tokens": job.prompt_tokens + job.emitted,
    }


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _error(status: int, message: str, kind: str, param: str | None = None) -> web.Response:
    error = {"message": message, "type": kind, "param": param, "code": status}
    body = msgspec.json.encode({"error": error})
    return web.Response(status=status, body=body, content_type="application/json")
