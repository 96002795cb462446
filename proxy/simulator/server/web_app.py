"""Endpoints of every simulated server: health, true energy, faults on command, errors in FastAPI's format."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Literal

import msgspec
from aiohttp import web

from proxy.clock import WallAnchor, now_ns
from proxy.simulator.engine.job import Joules
from proxy.simulator.server.runner import J, P, Runner
from proxy.simulator.server.text_requests import RefusedError
from proxy.units import NS_PER_SECOND

_KEEP_TRUTH: Final = 100_000
_MOST_BODY: Final = 64 * 1024 * 1024
_PARTS: Final = ("static", "prefill", "decode", "context")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fault(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Fault of a device: its counter restarts at 0, it is lost or recovers, its calls are slow."""

    kind: Literal["reset", "lost", "restored", "slow"]
    device: int = 0
    call_seconds: float = 0.0  # of "slow": what each NVML call takes; 0: as before


Break = Callable[[Fault], None]  # raises IndexError for a device that is not there


class FailedError(Exception):
    """The engine ended before the answer did."""


class WebApp(Generic[J, P]):
    """Routes around a runner; ``port`` after ``start``."""

    def __init__(self, runner: Runner[J, P], fault: Break | None = None) -> None:
        self.runner = runner
        self.port = 0
        self._fault = fault
        self._anchor = WallAnchor.take()
        self._truths: dict[str, Sequence[Joules]] = {}
        self._task: asyncio.Task[None] | None = None
        self._web: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        """Those of the kind of server; the common ones are added."""
        raise NotImplementedError

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Run the engine and listen."""
        app = web.Application(middlewares=[_errors], client_max_size=_MOST_BODY)
        app.add_routes(
            [
                *self.routes(),
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.get("/truth", self._truth),
                web.get("/truth/requests/{id}", self._truth_of),
                web.post("/faults", self._break),
            ]
        )
        self._task = asyncio.get_running_loop().create_task(self.runner.run())
        self._web = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await self._web.setup()
        await web.TCPSite(self._web, host, port).start()
        self.port = self._web.addresses[0][1]

    async def close(self) -> None:
        """Stop serving and the engine."""
        if self._web is not None:
            await self._web.cleanup()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def remember(self, name: str, joules: Sequence[Joules]) -> None:
        """Keep the energy of a request's jobs for ``/truth/requests/{id}``."""
        self._truths[name] = joules
        if len(self._truths) > _KEEP_TRUTH:
            del self._truths[next(iter(self._truths))]

    def now(self) -> int:
        """Unix seconds."""
        return self._anchor.unix(now_ns()) // NS_PER_SECOND

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=503 if self.runner.failed else 200)

    async def _truth(self, _request: web.Request) -> web.Response:
        runner = self.runner
        joules = {"idle_joules": runner.idle_joules(now_ns()), "busy_joules": runner.busy_joules}
        return as_json(msgspec.json.encode(joules | {"late_seconds": runner.late_seconds}))

    async def _truth_of(self, request: web.Request) -> web.Response:
        known = self._truths.get(request.match_info["id"])
        if known is None:
            return refused(RefusedError(404, "no such request", "NotFoundError"))
        parts = {name: sum(getattr(joules, name) for joules in known) for name in _PARTS}
        return as_json(msgspec.json.encode({"joules": sum(parts.values()), "parts": parts}))

    async def _break(self, request: web.Request) -> web.Response:
        if self._fault is None:
            return refused(RefusedError(404, "this server has no simulated device", "NotFoundError"))
        try:
            self._fault(msgspec.json.decode(await request.read(), type=Fault))
        except (msgspec.MsgspecError, IndexError) as error:
            return refused(RefusedError(400, str(error), "BadRequestError"))
        return as_json(b'{"done":true}')


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Unknown paths and methods as FastAPI answers them."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        allowed: dict[str, Any] = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        body = msgspec.json.encode({"detail": error.reason})
        return web.Response(status=error.status, body=body, content_type="application/json", headers=allowed)


def as_json(body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    """Return a response with a JSON body."""
    return web.Response(body=body, content_type="application/json", headers=headers)


def refused(error: RefusedError) -> web.Response:
    """Return an error response in the format of OpenAI's API."""
    return web.Response(status=error.status, body=error.body(), content_type="application/json")
