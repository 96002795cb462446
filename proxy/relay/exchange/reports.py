# Compiled by mypyc: see setup.py.
"""Reports of an exchange: to the meter that a request begins, to the balancer how its backend does."""

import logging
from typing import Final

from proxy.api.fields import MAX_TEXT_LENGTH
from proxy.clock import now_ns
from proxy.core.events import Arrive
from proxy.relay.context import WorkerContext
from proxy.relay.exchange.request import Request
from proxy.relay.http.trace_context import Trace
from proxy.relay.request_meter import RequestMeter
from proxy.relay.upstreams.balancer import Slot

_GENERATING: Final = frozenset(("chat", "completions", "responses", "messages", "invocations"))
_log = logging.getLogger(__name__)


def start_meter(
    context: WorkerContext, request: Request, route: str, slot: Slot, trace: Trace, received_ns: int
) -> RequestMeter:
    """Report to the meter that ``request`` is about to be sent to the backend of ``slot``.

    ``received_ns`` is the monotonic time of its head. Call ``close`` of the result once, however it ends.
    """
    tenant, endpoint = context.config.tenant_header, request.endpoint
    assert endpoint is not None  # it has a route
    stream, backend = request.fields.stream, slot.backend.name or None
    prompt_bytes, prefix_bytes = _prompt_sizes(context, request, route, slot)
    arrive = Arrive(
        now_ns(),
        request.id,
        route,
        request.model,
        endpoint.streams if stream is None else stream,
        (),  # the meter maps the backend to its devices
        (request.head.text(tenant.lower().encode()) or "")[:MAX_TEXT_LENGTH] or None if tenant else None,
        backend,
        prompt_bytes,
        prefix_bytes,
        samples=request.samples,
    )
    pool = context.pools[slot]
    request_meter = RequestMeter(context.link, arrive, pool.address, pool.port, endpoint.dialects)
    path = request.path[:MAX_TEXT_LENGTH]
    request_meter.open(trace, received_ns, path, request.output_limit, request.unread)
    return request_meter


def _prompt_sizes(
    context: WorkerContext, request: Request, route: str, slot: Slot
) -> tuple[int | None, int | None]:
    """Return the prompt's bytes, and how many of them an earlier prompt began with; None: not known."""
    prompt = request.prompt() if route in _GENERATING else None
    if prompt is None:
        return None, None
    group = f"{slot.backend.url} {request.model}"
    return len(prompt), context.prefixes.longest(group, prompt)


def record_failure(context: WorkerContext, slot: Slot, message: str) -> None:
    """Count a failed request against its backend, and log it with ``message``."""
    left_out = context.balancer.record_failure(slot, now_ns(), message)
    _log.warning("backend %s: %s%s", slot.backend.url, message, ": left out" if left_out else "")


def record_status(context: WorkerContext, slot: Slot, status: int, t_ns: int) -> None:
    """Count a response of this status, received at ``t_ns`` (monotonic), for or against its backend."""
    if context.balancer.record_status(slot, status, t_ns):
        _log.warning("backend %s: answers with %d: left out", slot.backend.url, status)
