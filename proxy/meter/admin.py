"""HTTP endpoints of the admin port: records, accounts, terms, metrics, health, dashboard. All are read-only.

With an admin token, all but the health checks and the dashboard's static files require it.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from importlib import resources
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.clock import now_ns
from proxy.core.ledger import GROUPINGS
from proxy.exporters.prometheus import PrometheusExporter
from proxy.meter.feed import INTERVAL_SECONDS, Feed
from proxy.meter.meter import Meter
from proxy.meter.query import ParameterError, error_response, json_response, number
from proxy.schema import RequestEnergy
from proxy.units import ns_from_seconds

MAX_WAIT_SECONDS: Final = 60.0
MAX_RECORDS: Final = 10_000
_FAR: Final = 2.0**63  # upper bound of times: nanoseconds that fit into 64 bits
_POLL_SECONDS: Final = 0.02
_PAGE: Final = {  # static files without data; the data comes from /events
    "/": ("index.html", "text/html"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
}
_POLICY: Final = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:"
_OPEN_PATHS: Final = (*_PAGE, "/healthz", "/readyz")

_log = logging.getLogger(__name__)


def application(meter: Meter, metrics: PrometheusExporter, feed: Feed, token: str | None) -> web.Application:
    """Return the web application of the admin port.

    Args:
        meter: Source of records and accounts.
        metrics: Source of ``/metrics``.
        feed: Data of the dashboard.
        token: Bearer token that clients must send, or None.
    """
    admin = _Admin(meter, metrics, feed)
    app = web.Application(middlewares=[_shaped, *([_guard(token)] if token else [])])
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
            web.get("/backends", admin.backends),
            web.get("/events", admin.events),
            *(web.get(path, _page) for path in _PAGE),
        ]
    )
    return app


@web.middleware
async def _shaped(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert all exceptions into error responses of one format."""
    try:
        return await handler(request)
    except ParameterError as error:
        return error.response()
    except web.HTTPException as error:
        hint = f"no {request.method} {request.path} here; see GET / and the README"
        return error_response(error.status, hint if error.status in {404, 405} else error.reason, None)
    except ConnectionError:
        raise  # the client disconnected
    except Exception:  # noqa: BLE001 - the top of a request
        _log.exception("admin: %s failed", request.path)
        return error_response(500, "the meter failed to answer: see its log", "internal_error")


def _guard(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = f"{scheme.title()} {key}".encode(errors="surrogateescape")  # a header may contain any byte
        if request.path not in _OPEN_PATHS and not hmac.compare_digest(given, expected):
            hint = "send the admin token as 'Authorization: Bearer TOKEN'"
            response = error_response(401, hint, "unauthorized")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return await handler(request)

    return guard


class _Admin:
    def __init__(self, meter: Meter, metrics: PrometheusExporter, feed: Feed) -> None:
        self._meter = meter
        self._feed = feed
        self._metrics = metrics

    async def healthy(self, _request: web.Request) -> web.Response:
        return json_response({"status": "ok", "source": self._meter.source})

    async def ready(self, _request: web.Request) -> web.Response:
        if not self._meter.intake.relays:
            return error_response(
                503, "no relay worker is connected to the meter, or all are draining", "not_ready"
            )
        states = {view.name: view.state for view in self._meter.backends()}
        return json_response({"status": "ok", "relays": self._meter.intake.relays, "backends": states})

    async def metrics(self, request: web.Request) -> web.Response:
        body, kind = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def clock(self, _request: web.Request) -> web.Response:
        now = now_ns()
        return json_response({"monotonic_ns": now, "now_ns": now, "unix_ns": self._meter.anchor.unix(now)})

    async def request(self, request: web.Request) -> web.Response:
        name = self._meter.intake.newest(request.match_info["id"])
        await self._meter.until_final(name, number(request, "wait_seconds", 0, 0, MAX_WAIT_SECONDS))
        record = self._meter.record(name)
        if record is None:
            return error_response(
                404, f"no record of request {name!r}: not seen, or no longer kept in memory", "not_found"
            )
        return json_response(record)

    async def requests(self, request: web.Request) -> web.Response:
        if "ids" in request.query:
            return await self._by_id(request, request.query["ids"].split(","))
        limit = int(number(request, "limit", 100, 0, MAX_RECORDS))
        since = number(request, "since", 0, 0, _FAR)
        found = self._meter.ledger.records(
            round(since * 1e9) or None, request.query.get("model"), request.query.get("tenant")
        )
        return json_response([record for record, _ in zip(found, range(limit), strict=False)])

    async def requests_by_id(self, request: web.Request) -> web.Response:
        try:
            ids = msgspec.json.decode(await request.read(), type=list[str])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ParameterError("body", f"must be a JSON list of request ids: {error}") from error
        return await self._by_id(request, ids)

    async def _by_id(self, request: web.Request, ids: list[str]) -> web.Response:
        if len(ids) > MAX_RECORDS:
            raise ParameterError("ids", f"at most {MAX_RECORDS} at once, not {len(ids)}")
        wait = number(request, "wait_seconds", 0, 0, MAX_WAIT_SECONDS)
        await _until(lambda: all(record.final for record in self._records(ids)), wait)
        return json_response(self._records(ids))

    def _records(self, ids: list[str]) -> list[RequestEnergy]:
        found = (self._meter.record(self._meter.intake.newest(name)) for name in ids)
        return [record for record in found if record is not None]

    async def summary(self, request: web.Request) -> web.Response:
        by = request.query.get("by", "model")
        if by not in GROUPINGS:
            raise ParameterError("by", f"must be one of {', '.join(GROUPINGS)}, not {by!r}")
        window = number(request, "window", 0, 0, _FAR) or None
        return json_response(self._meter.ledger.summary(by, window, self._meter.anchor.unix(now_ns())))

    async def devices(self, _request: web.Request) -> web.Response:
        meter = self._meter
        return json_response(
            {"devices": meter.accounts(meter.attributor.accounts()), "left_out": meter.left_out}
        )

    async def model(self, _request: web.Request) -> web.Response:
        return json_response(
            {"policy": self._meter.attributor.policy.name, "terms": self._meter.attributor.terms()}
        )

    async def window(self, request: web.Request) -> web.Response:
        start = int(number(request, "start_ns", None, 0, _FAR))
        end = int(number(request, "end_ns", None, 0, _FAR))
        if end <= start:
            raise ParameterError("end_ns", "must be after start_ns")
        core = self._meter.attributor
        await _until(
            lambda: core.closed_ns() is None or (core.closed_ns() or 0) >= end,
            number(request, "wait_seconds", 0, 0, MAX_WAIT_SECONDS),
        )
        return json_response({"devices": self._meter.accounts(core.window(start, end))})

    async def backends(self, _request: web.Request) -> web.Response:
        return json_response({"backends": self._meter.backends(), "relays": self._meter.relays()})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream ``history`` once, then the state twice a second until the client disconnects (SSE)."""
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        feed = self._feed
        with contextlib.suppress(ConnectionResetError):  # the client has disconnected
            await response.write(b"event: history\ndata: " + feed.history() + b"\n\n")
            while True:
                await response.write(b"data: " + feed.state() + b"\n\n")
                await asyncio.sleep(INTERVAL_SECONDS)
        return response


async def _page(request: web.Request) -> web.Response:
    """Serve a file of the dashboard; its policy forbids scripts and data from other origins."""
    name, kind = _PAGE[request.path]
    text = resources.files("proxy.dashboard").joinpath(name).read_text("utf-8")
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return web.Response(text=text, content_type=kind, headers=headers)


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Poll until ``holds()`` is true, at most ``seconds``."""
    deadline = now_ns() + ns_from_seconds(seconds)
    while not holds() and now_ns() < deadline:  # noqa: ASYNC110 - state moves in ticks: nothing to await
        await asyncio.sleep(_POLL_SECONDS)
