"""An admin port of a proxy whose device draws a constant power, on a clock far from this host's."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

OFFSET_NS = 7_000_000_000_000
WATTS = 200.0


class FakeAdmin:
    """Answers clock, window and requests; an async context manager."""

    def __init__(
        self, *, idle_share: float = 0.25, joules_each: float | None = None, token: str | None = None
    ) -> None:
        self.token = token
        self.idle_share = idle_share
        self.joules_each = joules_each
        self.url = ""
        self.asked: list[str] = []
        self.windows: list[tuple[int, int]] = []
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/energy/clock", self._clock)
        app.router.add_get("/energy/window", self._window)
        app.router.add_post("/energy/requests", self._requests)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        return await handler(request)

    async def _clock(self, _: web.Request) -> web.Response:
        return web.json_response({"now_ns": time.monotonic_ns() + OFFSET_NS})

    async def _window(self, request: web.Request) -> web.Response:
        start, end = int(request.query["start_ns"]), int(request.query["end_ns"])
        self.windows.append((start, end))
        joules = WATTS * (end - start) / 1e9
        account: dict[str, Any] = {
            "device": "GPU-0",
            "source": "simulated",
            "measured_joules": joules,
            "requests_joules": joules * (1 - self.idle_share),
            "idle_joules": joules * self.idle_share,
            "unattributed_joules": 0.0,
            "start_ns": start,
            "end_ns": end,
        }
        return web.json_response({"devices": [account]})

    async def _requests(self, request: web.Request) -> web.Response:
        ids = await request.json()
        self.asked += ids
        each = self.joules_each
        return web.json_response(
            [
                {
                    "request_id": name,
                    "joules": each,
                    "final": True,
                    "parts": {"static": 1.0, "decode": 3.0},
                }
                for name in ids
            ]
        )
