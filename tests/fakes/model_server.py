"""A small OpenAI-compatible server in this process: fixed answers, streamed at a fixed pace."""

import asyncio
from typing import Any, Self

import msgspec
from aiohttp import web

MODEL = "tiny"


class ModelServer:
    """``chat/completions``, ``completions`` and ``models``; an async context manager.

    ``metrics``: it reports the number of running requests, as vLLM does. Streams
    pause while ``may_end`` is not set, before their last token: for tests that act during a stream.
    """

    def __init__(self, *, tokens: int = 20, gap_seconds: float = 0.02, metrics: bool = False) -> None:
        self.running = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.tokens = tokens
        self.gap_seconds = gap_seconds
        self.url = ""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        if metrics:
            app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    @property
    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": self.tokens, "total_tokens": 7 + self.tokens}

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "tests"}
        return web.json_response({"object": "list", "data": [model]})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f"vllm:num_requests_running {self.running}\n")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("stream"):
            return await self._stream(request, asked)
        await asyncio.sleep(self.tokens * self.gap_seconds)
        message = {"role": "assistant", "content": "a " * self.tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(self._object("chat.completion", choices=[choice], usage=self._usage))

    async def _completions(self, _: web.Request) -> web.Response:
        choice = {"index": 0, "text": "a", "finish_reason": "length", "logprobs": None}
        return web.json_response(self._object("text_completion", choices=[choice], usage=self._usage))

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(self.tokens):
            last = number == self.tokens - 1
            if last:
                await self.may_end.wait()
            choice = {"index": 0, "delta": {"content": "a "}, "finish_reason": "stop" if last else None}
            await answer.write(self._event(choices=[choice]))
            await asyncio.sleep(self.gap_seconds)
        if (asked.get("stream_options") or {}).get("include_usage"):
            await answer.write(self._event(choices=[], usage=self._usage))
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    def _event(self, **fields: object) -> bytes:
        return b"data: " + msgspec.json.encode(self._object("chat.completion.chunk", **fields)) + b"\n\n"

    @staticmethod
    def _object(kind: str, **fields: object) -> dict[str, object]:
        return {"id": "answer-1", "object": kind, "created": 1, "model": MODEL, **fields}
