"""The baseline: a tuned relay of aiohttp. ``python -m ...aiohttp_relay PORT BACKEND_PORT``."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import uvloop
from aiohttp import web

_GONE: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade"}


class Relay:
    """Passes every request on; answers as they come."""

    def __init__(self, backend: int) -> None:
        self._url = f"http://127.0.0.1:{backend}"
        self._session: aiohttp.ClientSession | None = None

    async def session(self, _app: web.Application) -> AsyncIterator[None]:
        """One session for all, without limits, decompression or a cookie jar."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        async with self._session:
            yield

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        assert self._session is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _GONE]
        async with self._session.request(
            request.method, self._url + request.path_qs, headers=headers, data=await request.read()
        ) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _GONE]
            if answer.content_length is not None:
                body = await answer.read()
                return web.Response(status=answer.status, headers=dict(kept), body=body)
            response = web.StreamResponse(status=answer.status, headers=dict(kept))
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


async def main(port: int, backend: int) -> None:
    relay = Relay(backend)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", relay.handle)
    app.cleanup_ctx.append(relay.session)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
