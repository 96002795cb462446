"""One request through the proxy: bytes through, events out.

The answer passes byte for byte, as it comes, unless the operator or the client asked for energy in it. A
client that leaves cancels its backend request at once; a backend that dies within an answer reaches the
client as a broken stream, never as a clean end.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict
from yarl import URL

from proxy.clock import now_ns
from proxy.config import Backend, RelayConfig
from proxy.core.events import Arrive
from proxy.core.sse import EventSplitter, data_of
from proxy.relay.answers import DONE, error_body, with_energy, with_usage_energy
from proxy.relay.call import Call
from proxy.relay.headers import end_to_end, for_backend
from proxy.relay.link import MeterLink
from proxy.relay.routes import Asked, asked, route_of, with_usage
from proxy.relay.trace import continue_trace
from proxy.schema import ENERGY_HEADER, ENERGY_JOULES_HEADER, REQUEST_ID_HEADER

_READ_BODY_LIMIT: Final = 64 * 1024 * 1024  # a metered JSON request; larger ones are relayed unread
_JSON_LIMIT: Final = 16 * 1024 * 1024  # an answer read for its usage
_ANSWER_SECONDS: Final = 0.2  # for a provisional value; it is there at once, this bounds a dead meter
_NO_ENERGY: Final = b'{"joules":null,"final":false,"unknown":"meter_unavailable"}'
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with one answer."""

    request_id: str
    call: Call | None
    energy: str  # off, on, wait
    drop_usage: bool  # the usage chunk is ours, not the client's


class Handler:
    """Handles each request of one worker."""

    def __init__(
        self, config: RelayConfig, backend: Backend, session: aiohttp.ClientSession, link: MeterLink
    ) -> None:
        self._config = config
        self._backend = backend
        self._base = backend.url.rstrip("/")
        self._session = session
        self._link = link

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Relay one request."""
        received = now_ns()
        request_id = request.headers.get(REQUEST_ID_HEADER) or f"req-{uuid.uuid4().hex}"
        route = route_of(request.method, request.path)
        body, asks = await self._body(request, route)
        trace = continue_trace(request.headers.get("traceparent")) if route else None
        headers = for_backend(request.headers, request_id, trace, request.remote)
        if body is not None and not isinstance(body, bytes) and request.content_length is not None:
            headers["Content-Length"] = str(request.content_length)
        call, ours = None, None
        if route and trace:
            ours = with_usage(route, body, asks) if isinstance(body, bytes) else None
            tenant = self._config.tenant_header
            arrive = Arrive(
                now_ns(),
                request_id,
                route,
                asks.model,
                bool(asks.stream),
                self._backend.devices,
                request.headers.get(tenant) if tenant else None,
                self._backend.name or None,
            )
            limit = asks.max_completion_tokens or asks.max_tokens
            call = Call(self._link, arrive, trace, received, request.path, limit)
        plan = Plan(request_id, call, self._energy_mode(request), ours is not None)
        try:
            return await self._forward(request, headers, body if ours is None else ours, plan)
        except asyncio.CancelledError:
            if call:
                call.close(None, "cancelled", cancelled=True)
            raise

    def _energy_mode(self, request: web.BaseRequest) -> str:
        wish = request.headers.get(ENERGY_HEADER, "").lower()
        return wish if wish in {"off", "on", "wait"} else self._config.energy_in_response

    async def _body(
        self, request: web.BaseRequest, route: str | None
    ) -> tuple[bytes | AsyncIterator[bytes] | None, Asked]:
        """The request's body: whole where it is read, else as a stream."""
        if not request.body_exists:
            return None, Asked()
        length = request.content_length
        if route and length is not None and length <= _READ_BODY_LIMIT and "json" in request.content_type:
            body = await request.content.read()
            return body, asked(body)
        return request.content.iter_any(), Asked()

    async def _forward(
        self,
        request: web.BaseRequest,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        plan: Plan,
    ) -> web.StreamResponse:
        call = plan.call
        url = URL(self._base + request.raw_path, encoded=True)  # as the client wrote it, never requoted
        try:
            upstream = await self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            )
        except TimeoutError:
            return self._refuse(plan, 504, "the backend did not answer in time", "backend_timeout")
        except (aiohttp.ClientError, OSError) as error:
            _log.warning("backend %s: %s", self._base, error)
            return self._refuse(plan, 502, f"the backend cannot be reached: {error}", "backend_unreachable")
        async with upstream:
            try:
                return await self._answer(request, upstream, plan)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                _log.warning("backend %s broke within an answer: %s", self._base, error)
                if call:
                    call.close(upstream.status, "upstream_reset")
                if request.transport is not None:
                    request.transport.abort()
                raise asyncio.CancelledError from error

    def _refuse(self, plan: Plan, status: int, message: str, code: str) -> web.Response:
        if plan.call:
            plan.call.close(status, code)
        return web.Response(
            status=status,
            body=error_body(message, code),
            content_type="application/json",
            headers={REQUEST_ID_HEADER: plan.request_id},
        )

    async def _answer(
        self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, plan: Plan
    ) -> web.StreamResponse:
        headers = end_to_end(upstream.headers)
        call = plan.call
        if call:
            headers[REQUEST_ID_HEADER] = plan.request_id  # the id its energy is found by
        else:
            headers.setdefault(REQUEST_ID_HEADER, plan.request_id)
        plain = "Content-Encoding" not in upstream.headers
        if call and not plain:
            call.metered = False
        if call and plain and upstream.content_type == "text/event-stream":
            headers.popall("Content-Length", None)
            return await self._stream(request, upstream, headers, plan, call)
        if call and plain and upstream.content_type == "application/json":
            return await self._json(request, upstream, headers, plan, call)
        response = await self._begin(request, upstream, headers)
        async for data in upstream.content.iter_any():
            await response.write(data)
        if call:
            call.close(upstream.status)
        await response.write_eof()
        return response

    async def _begin(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        headers: CIMultiDict[str],
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
        if "Content-Length" not in response.headers and upstream.status not in {204, 304}:
            if request.version >= HttpVersion11:
                response.enable_chunked_encoding()
            else:
                response.force_close()  # HTTP/1.0 knows no chunks: the end of the connection is the end
        await response.prepare(request)
        return response

    async def _json(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        headers: CIMultiDict[str],
        plan: Plan,
        call: Call,
    ) -> web.StreamResponse:
        """An answer sent whole: relayed as it comes, read at its end; held back only to add energy."""
        body = bytearray()
        response = None
        if plan.energy == "off":
            response = await self._begin(request, upstream, headers)
        async for data in upstream.content.iter_any():
            if len(body) <= _JSON_LIMIT:
                body += data
            if response is not None:
                await response.write(data)
        if len(body) <= _JSON_LIMIT:
            call.reading.read_body(bytes(body))
        call.close(upstream.status, str(upstream.status) if upstream.status >= 400 else None)
        if response is None:
            energy = await self._energy(plan)
            headers.popall("Content-Length", None)
            if b'"joules":null' not in energy:
                headers[ENERGY_JOULES_HEADER] = energy.partition(b'"joules":')[2].partition(b",")[0].decode()
            return web.Response(
                status=upstream.status, headers=headers, body=with_energy(bytes(body), energy)
            )
        await response.write_eof()
        return response

    async def _stream(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        headers: CIMultiDict[str],
        plan: Plan,
        call: Call,
    ) -> web.StreamResponse:
        """A stream of events: passed on as it comes; whole events only where one may be changed."""
        response = await self._begin(request, upstream, headers)
        splitter = EventSplitter()
        changing = plan.drop_usage or plan.energy != "off"
        said = False
        async for data in upstream.content.iter_any():
            t_ns = now_ns()
            if not changing:
                await response.write(data)
            out = []
            for event in splitter.feed(data):
                tokens, usage = call.reading.read_event(event)
                if tokens:
                    call.chunk(t_ns, tokens)
                if not changing:
                    continue
                if plan.energy != "off" and not said and (usage or data_of(event) == DONE):
                    if usage and plan.drop_usage:
                        continue
                    call.close(upstream.status)
                    energy = await self._energy(plan)
                    said = True
                    out.append(
                        with_usage_energy(event, energy) if usage else b": energy " + energy + b"\n\n" + event
                    )
                elif not (usage and plan.drop_usage):
                    out.append(event)
            if out:
                await response.write(b"".join(out))
        if changing and splitter.rest:
            await response.write(splitter.rest)
        call.close(upstream.status)
        await response.write_eof()
        return response

    async def _energy(self, plan: Plan) -> bytes:
        """The energy object for an answer."""
        wait = self._config.energy_wait_seconds if plan.energy == "wait" else 0.0
        told = await self._link.ask(plan.request_id, wait, wait + _ANSWER_SECONDS)
        return told or _NO_ENERGY
