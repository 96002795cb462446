"""The admin port: records, accounts, terms, metrics, health, the dashboard. Reads only."""

import asyncio
import hmac
from collections.abc import Callable
from importlib import resources
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.clock import now_ns
from proxy.core.ledger import GROUPINGS
from proxy.exporters.prometheus import PrometheusExporter
from proxy.meter.meter import Meter
from proxy.schema import RequestEnergy
from proxy.units import ns_from_seconds

MAX_WAIT_SECONDS: Final = 60.0
MAX_RECORDS: Final = 10_000
_POLL_SECONDS: Final = 0.02
_FEED_SECONDS: Final = 0.5
_OPEN_PATHS: Final = ("/healthz", "/readyz")


def application(meter: Meter, metrics: PrometheusExporter, token: str | None) -> web.Application:
    """The admin application; with a token every path but the health checks asks for it."""
    admin = _Admin(meter, metrics)
    app = web.Application(middlewares=[_guard(token)] if token else [])
    app.add_routes(
        [
            web.get("/healthz", admin.healthy),
            web.get("/readyz", admin.ready),
            web.get("/metrics", admin.metrics),
            web.get("/energy/clock", admin.clock),
            web.get("/energy/requests", admin.requests),
            web.post("/energy/requests", admin.requests_by_id),
            web.get("/energy/requests/{id}", admin.request),
            web.get("/energy/summary", admin.summary),
            web.get("/energy/devices", admin.devices),
            web.get("/energy/model", admin.model),
            web.get("/energy/window", admin.window),
            web.get("/events", admin.events),
            web.get("/", admin.dashboard),
        ]
    )
    return app


def _guard(token: str) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path not in _OPEN_PATHS and not hmac.compare_digest(given.encode(), token.encode()):
            return _error(401, "send the admin token as 'Authorization: Bearer TOKEN'", "unauthorized")
        return await handler(request)

    return guard


class _Admin:
    def __init__(self, meter: Meter, metrics: PrometheusExporter) -> None:
        self._meter = meter
        self._metrics = metrics

    async def healthy(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok", "source": self._meter.source})

    async def ready(self, _request: web.Request) -> web.Response:
        if not self._meter.intake.relays:
            return _error(503, "no relay listens yet, or all are draining", "not_ready")
        return _json({"status": "ok", "relays": self._meter.intake.relays})

    async def metrics(self, request: web.Request) -> web.Response:
        body, kind = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def clock(self, _request: web.Request) -> web.Response:
        now = now_ns()
        return _json({"monotonic_ns": now, "now_ns": now, "unix_ns": self._meter.anchor.unix(now)})

    async def request(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        await self._meter.until_final(name, _seconds(request, "wait_seconds", MAX_WAIT_SECONDS))
        record = self._meter.record(name)
        if record is None:
            return _error(404, f"no request {name!r} is known (any more)", "not_found")
        return _json(record)

    async def requests(self, request: web.Request) -> web.Response:
        if "ids" in request.query:
            return await self._by_id(request, request.query["ids"].split(","))
        limit = int(_number(request, "limit", 100, 0, MAX_RECORDS))
        since = _number(request, "since", 0, 0, float("inf"))
        found = self._meter.ledger.records(
            round(since * 1e9) or None, request.query.get("model"), request.query.get("tenant")
        )
        return _json([record for record, _ in zip(found, range(limit), strict=False)])

    async def requests_by_id(self, request: web.Request) -> web.Response:
        try:
            ids = msgspec.json.decode(await request.read(), type=list[str])
        except msgspec.MsgspecError as error:
            raise _bad("body", f"must be a JSON list of request ids: {error}") from error
        return await self._by_id(request, ids)

    async def _by_id(self, request: web.Request, ids: list[str]) -> web.Response:
        if len(ids) > MAX_RECORDS:
            raise _bad("ids", f"at most {MAX_RECORDS} at once, not {len(ids)}")
        wait = _seconds(request, "wait_seconds", MAX_WAIT_SECONDS)
        await _until(lambda: all(record.final for record in self._records(ids)), wait)
        return _json(self._records(ids))

    def _records(self, ids: list[str]) -> list[RequestEnergy]:
        found = (self._meter.record(name) for name in ids)
        return [record for record in found if record is not None]

    async def summary(self, request: web.Request) -> web.Response:
        by = request.query.get("by", "model")
        if by not in GROUPINGS:
            raise _bad("by", f"must be one of {', '.join(GROUPINGS)}, not {by!r}")
        window = _number(request, "window", 0, 0, float("inf")) or None
        return _json(self._meter.ledger.summary(by, window, self._meter.anchor.unix(now_ns())))

    async def devices(self, _request: web.Request) -> web.Response:
        meter = self._meter
        return _json({"devices": meter.accounts(meter.attributor.accounts())})

    async def model(self, _request: web.Request) -> web.Response:
        return _json({"policy": self._meter.attributor.policy.name, "terms": self._meter.attributor.terms()})

    async def window(self, request: web.Request) -> web.Response:
        start = int(_number(request, "start_ns", None, 0, float("inf")))
        end = int(_number(request, "end_ns", None, 0, float("inf")))
        if end <= start:
            raise _bad("end_ns", "must be after start_ns")
        core = self._meter.attributor
        await _until(
            lambda: core.closed_ns() is None or (core.closed_ns() or 0) >= end,
            _seconds(request, "wait_seconds", MAX_WAIT_SECONDS),
        )
        return _json({"devices": self._meter.accounts(core.window(start, end))})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent: devices and the newest records, twice a second, until the client leaves."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        meter = self._meter
        while True:
            records = [r for r, _ in zip(meter.ledger.records(), range(40), strict=False)]
            state = {
                "source": meter.source,
                "policy": meter.attributor.policy.name,
                "devices": meter.accounts(meter.attributor.accounts()),
                "terms": meter.attributor.terms(),
                "in_flight": meter.ledger.in_flight(),
                "summary": meter.ledger.summary("model", 60.0, meter.anchor.unix(now_ns())),
                "requests": records,
            }
            await response.write(b"data: " + msgspec.json.encode(state) + b"\n\n")
            await asyncio.sleep(_FEED_SECONDS)

    async def dashboard(self, _request: web.Request) -> web.Response:
        page = resources.files("proxy.dashboard").joinpath("index.html").read_text("utf-8")
        return web.Response(text=page, content_type="text/html")


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Look until it holds, at most so long."""
    deadline = now_ns() + ns_from_seconds(seconds)
    while not holds() and now_ns() < deadline:  # noqa: ASYNC110 - state moves in ticks: nothing to await
        await asyncio.sleep(_POLL_SECONDS)


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _error(status: int, message: str, code: str) -> web.Response:
    body = msgspec.json.encode(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    )
    return web.Response(status=status, body=body, content_type="application/json")


def _bad(param: str, message: str) -> web.HTTPBadRequest:
    body = {"message": f"{param}: {message}", "type": "invalid_request_error", "param": param, "code": None}
    return web.HTTPBadRequest(body=msgspec.json.encode({"error": body}), content_type="application/json")


def _seconds(request: web.Request, name: str, most: float) -> float:
    return _number(request, name, 0.0, 0.0, most)


def _number(request: web.Request, name: str, default: float | None, low: float, high: float) -> float:
    text = request.query.get(name)
    if text is None:
        if default is None:
            raise _bad(name, "is needed")
        return default
    try:
        value = float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        raise _bad(name, f"must be a number, not {text!r}") from None
    if not low <= value <= high:
        raise _bad(name, f"must be within {low:g} and {high:g}, not {text}")
    return value
