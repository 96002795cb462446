# Compiled by mypyc: see setup.py.
"""Reports of an exchange: to the meter that a request begins, to the balancer how its backend does."""

import logging
from typing import Final

from proxy.api.fields import MAX_TEXT_LENGTH
from proxy.api.jobs import JobPath
from proxy.clock import now_ns
from proxy.core.events import Arrive
from proxy.relay.context import WorkerContext
from proxy.relay.exchange.request import Request
from proxy.relay.http.trace_context import Trace
from proxy.relay.jobs.poll import JobPoll
from proxy.relay.jobs.table import Job
from proxy.relay.request_meter import RequestMeter
from proxy.relay.upstreams.balancer import Slot

_GENERATING: Final = frozenset(("chat", "completions", "responses", "messages", "invocations"))
_log = logging.getLogger(__name__)


def start_meter(
    context: WorkerContext, request: Request, slot: Slot, trace: Trace, received_ns: int
) -> RequestMeter:
    """Report to the meter that ``request`` is about to be sent to the backend of ``slot``.

    The request has a route. ``received_ns`` is the monotonic time of its head. Call ``close`` of the result
    once, however it ends.
    """
    tenant, endpoint = context.config.tenant_header, request.endpoint
    assert endpoint is not None
    assert endpoint.route is not None
    stream, backend = request.fields.stream, slot.backend.name or None
    prompt_bytes, prefix_bytes = _prompt_sizes(context, request, endpoint.route, slot)
    arrive = Arrive(
        now_ns(),
        request.id,
        endpoint.route,
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
    job = None
    if endpoint.creates_job:
        job = Job(context.jobs, slot, request.head, request.path, arrive.t_ns)
    request_meter = RequestMeter(context.link, arrive, pool.address, pool.port, endpoint.dialects, job)
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


def start_poll(context: WorkerContext, path: JobPath, method: bytes) -> RequestMeter | None:
    """Return what reads the response to a request about a job; None for a job that does not run here."""
    job = context.jobs.running(path.id) if path.reports else None
    if job is None or job.request_meter is None:
        return None
    return JobPoll(context.jobs, job, job.request_meter, deletes=method == b"DELETE")


def record_failure(context: WorkerContext, slot: Slot, message: str) -> None:
    """Count a failed request against its backend, and log it with ``message``."""
    left_out = context.balancer.record_failure(slot, now_ns(), message)
    _log.warning("backend %s: %s%s", slot.backend.url, message, ": left out" if left_out else "")


def record_status(context: WorkerContext, slot: Slot, status: int, t_ns: int) -> None:
    """Count a response of this status, received at ``t_ns`` (monotonic), for or against its backend."""
    if context.balancer.record_status(slot, status, t_ns):
        _log.warning("backend %s: answers with %d: left out", slot.backend.url, status)
