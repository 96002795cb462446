"""Jobs as ``/v1/videos`` has them: each is done after a number of questions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(slots=True)
class VideoServer:
    """``asked[id]`` counts the questions; ``ending`` is the last state, ``lost`` forgets jobs."""

    questions: int = 2
    ending: str = "completed"
    lost: bool = False
    url: str = ""
    forms: list[dict[str, str]] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)

    async def make(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        name = f"video/{len(self.asked)}"
        self.asked[name] = 0
        return web.json_response({"id": name, "status": "queued"})

    async def show(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if self.lost:
            return web.json_response({}, status=404)
        self.asked[name] += 1
        done = self.asked[name] >= self.questions
        return web.json_response({"id": name, "status": self.ending if done else "in_progress"})

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "film"}]})


@asynccontextmanager
async def video_server(server: VideoServer) -> AsyncIterator[VideoServer]:
    app = web.Application()
    app.add_routes([
        web.post("/v1/videos", server.make),
        web.get("/v1/models", server.models),
        web.get("/v1/videos/{id:.+}", server.show),
    ])  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
