"""The engine as an OpenAI-compatible server: ``python -m proxy.gpu.server --port P``.

Endpoints: ``/v1/models``, ``/v1/chat/completions``, ``/v1/completions``, ``/health``. Responses are streamed
or not; usage is that of the engine. A token of a prompt is four bytes of its text, a generated one a word
with its number. The engine runs in a thread of its own; a client that disconnects cancels its request.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from aiohttp import web

from proxy.gpu.device import CudaDevice, Device, PacedGpu
from proxy.gpu.engine import Engine, Request, Runner, Step

MODEL: Final = "random-weights"
_PROMPT_BYTES: Final = 4
_DEFAULT_OUTPUT: Final = 16


class EngineThread:
    """Runs an engine. ``submit`` may be called from the event loop only."""

    def __init__(
        self,
        engine: Engine,
        log: IO[str] | None = None,
        on_failure: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        """Create it; the thread starts with the first request.

        Args:
            engine: runs the steps.
            log: receives a line of JSON for each step.
            on_failure: called once a step failed, after its traceback was printed. Nobody would ever get a
                token then, so the default ends the process: its clients see closed connections.
        """
        self._engine, self._log, self._on_failure = engine, log, on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: list[Request] = []
        self._queues: dict[str, asyncio.Queue[Request]] = {}
        self._changed = threading.Condition()

    def submit(self, request: Request) -> "asyncio.Queue[Request]":
        """Queue a request; its queue receives it once for each token."""
        self._queues[request.name] = asyncio.Queue()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, args=(self._loop,), name="engine", daemon=True).start()
        with self._changed:
            self._new.append(request)
            self._changed.notify()
        return self._queues[request.name]

    def forget(self, request: Request) -> None:
        """Cancel a request unless it is finished."""
        request.cancelled = not request.finished
        self._queues.pop(request.name, None)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._changed:
                while not self._new and not self._engine.load:
                    self._changed.wait()
                new, self._new = self._new, []
            for request in new:
                self._engine.add(request)
            try:
                step = self._engine.step()
            except Exception:  # noqa: BLE001 - such as an error of CUDA; the reason must be seen
                traceback.print_exc()
                self._on_failure()
                return
            if step is not None:
                self._write(step)
                loop.call_soon_threadsafe(self._emit, step.emitted)

    def _write(self, step: Step) -> None:
        if self._log is not None:
            times = {"start_ns": step.start_ns, "end_ns": step.end_ns}
            self._log.write(json.dumps(times | {"members": step.members, "works": step.works}) + "\n")
            self._log.flush()

    def _emit(self, emitted: tuple[Request, ...]) -> None:
        for request in emitted:
            if queue := self._queues.get(request.name):
                queue.put_nowait(request)


class Handler:
    """The endpoints."""

    def __init__(self, thread: EngineThread, length: int, vocabulary: int) -> None:
        self._thread, self._length, self._vocabulary = thread, length, vocabulary
        self._numbers = itertools.count()

    async def models(self, _request: web.Request) -> web.Response:
        """List the one model."""
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def health(self, _request: web.Request) -> web.Response:
        """Report that the server runs."""
        return web.Response(text="ok")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Serve ``/v1/chat/completions``."""
        return await self._complete(request, _chat_text, _CHAT)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Serve ``/v1/completions``."""
        return await self._complete(request, lambda body: str(body.get("prompt", "")), _COMPLETION)

    async def _complete(
        self, http: web.Request, text_of: Callable[[dict[str, Any]], str], shape: "Shape"
    ) -> web.StreamResponse:
        try:
            body = json.loads(await http.read())
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            request = self._request(body, text_of(body))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            return web.json_response({"error": {"message": str(error), "code": 400}}, status=400)
        queue = self._thread.submit(request)
        try:
            if body.get("stream"):
                return await self._stream(http, body, request, queue, shape)
            for _ in range(request.output):
                await queue.get()
            words = "".join(_word(token) for token in request.emitted)
            return web.json_response(shape.full(request.name, words) | {"usage": _usage(request)})
        finally:
            self._thread.forget(request)

    async def _stream(
        self,
        http: web.Request,
        body: dict[str, Any],
        request: Request,
        queue: "asyncio.Queue[Request]",
        shape: "Shape",
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        for index in range(request.output):
            await queue.get()
            last = index == request.output - 1
            await _event(response, shape.chunk(request.name, _word(request.emitted[index]), last=last))
        if (body.get("stream_options") or {}).get("include_usage"):
            await _event(response, shape.base(request.name) | {"choices": [], "usage": _usage(request)})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _request(self, body: dict[str, Any], text: str) -> Request:
        output = int(body.get("max_completion_tokens") or body.get("max_tokens") or _DEFAULT_OUTPUT)
        count = max(1, len(text.encode()) // _PROMPT_BYTES)
        if output < 1 or count + output > self._length:
            raise ValueError(
                f"{count} prompt tokens and max_tokens {output}: at most {self._length} together"
            )
        number = next(self._numbers)
        prompt = [(number + i) % self._vocabulary for i in range(count)]
        return Request(f"gpu-{number}", prompt, output)


class Shape:
    """The JSON of one endpoint."""

    def __init__(self, kind: str, *, chat: bool) -> None:
        self._kind, self._chat = kind, chat

    def base(self, name: str) -> dict[str, Any]:
        """Return the fields that all chunks have."""
        kind = f"{self._kind}.chunk" if self._chat else self._kind
        return {"id": name, "object": kind, "model": MODEL}

    def chunk(self, name: str, text: str, *, last: bool) -> dict[str, Any]:
        """Return one chunk of a stream."""
        content: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **content, "finish_reason": "length" if last else None}
        return self.base(name) | {"choices": [choice]}

    def full(self, name: str, text: str) -> dict[str, Any]:
        """Return a response that is not streamed."""
        message: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        content = message if self._chat else {"text": text}
        choice = {"index": 0, **content, "finish_reason": "length"}
        return {"id": name, "object": self._kind, "model": MODEL, "choices": [choice]}


_CHAT: Final = Shape("chat.completion", chat=True)
_COMPLETION: Final = Shape("text_completion", chat=False)


def _chat_text(body: dict[str, Any]) -> str:
    return "".join(str(message.get("content", "")) for message in body["messages"])


def _word(token: int) -> str:
    return f" w{token}"


def _usage(request: Request) -> dict[str, int]:
    prompt, output = len(request.prompt), len(request.emitted)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


async def _event(response: web.StreamResponse, body: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")


def application(
    device: Device, runner: Runner, budget: int, vocabulary: int, log: IO[str] | None = None
) -> web.Application:
    """Return the application; the engine's thread starts with the first request.

    ``log`` receives a line of JSON for each step: start, end, members and their work.
    """
    app = web.Application(client_max_size=1 << 26)
    handler = Handler(EngineThread(Engine(device, runner, budget), log), runner.length, vocabulary)
    app.router.add_get("/v1/models", handler.models)
    app.router.add_get("/health", handler.health)
    app.router.add_post("/v1/chat/completions", handler.chat)
    app.router.add_post("/v1/completions", handler.completions)
    return app


def main() -> int:
    """Serve until a signal."""
    from proxy.gpu import model  # noqa: PLC0415 - imports torch

    parser = argparse.ArgumentParser(prog="python -m proxy.gpu.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", choices=list(model.SIZES), default=model.fitting_size())
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--state", type=Path, help="the file of a simulated GPU; without it, the real one")
    parser.add_argument("--steps", type=Path, help="write the steps to this file, as JSON lines")
    given = parser.parse_args()
    size = model.SIZES[given.size]
    device: Device = PacedGpu(given.state) if given.state else CudaDevice()
    runner = model.Decoder(size, given.slots, given.length)
    with given.steps.open("w") if given.steps else contextlib.nullcontext() as log:
        app = application(device, runner, given.budget, size.vocabulary, log)
        web.run_app(app, host="127.0.0.1", port=given.port, print=None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
