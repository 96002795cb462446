# Compiled by mypyc: see setup.py.
"""One request and its response as a state machine (``states``).

The response is forwarded byte for byte as it is received, unless the operator or the client requested energy
in it. A client that disconnects cancels its backend request immediately. A backend that fails within a
response is seen by the client as an aborted connection, never as a clean end.

Calls come from three sides: the client connection (``begin``, ``request_body``, ``request_end``, ``cancel``,
``pause``), the backend connection (the ``on_`` methods of ``ResponseHandler``) and the sweep of timeouts.
"""

import asyncio
import logging
from typing import Final

from proxy.clock import now_ns
from proxy.relay.client_interface import ResponseWriter
from proxy.relay.context import WorkerContext
from proxy.relay.exchange.choice import BackendChoice
from proxy.relay.exchange.held_error import FORGET_SECONDS, HeldError, may_refuse
from proxy.relay.exchange.reports import record_failure, record_status, start_meter, start_poll
from proxy.relay.exchange.request import Request
from proxy.relay.exchange.states import State, check_transition
from proxy.relay.http.headers import for_backend, interim
from proxy.relay.http.heads import HeadError, RequestHead, ResponseHead
from proxy.relay.http.trace_context import Trace, continue_trace
from proxy.relay.request_meter import RequestMeter
from proxy.relay.response.fast_path import StreamForwarder
from proxy.relay.response.response import Response, ResponsePlan
from proxy.relay.upstreams.balancer import Slot
from proxy.relay.upstreams.connections import UpstreamConnection, connect_failure
from proxy.schema import ENERGY_HEADER, Unknown
from proxy.units import ns_from_seconds

_REPLY_SECONDS: Final = 0.2  # a provisional value is immediate; bounds the wait for a meter that hangs
_NO_ENERGY: Final = b'{"joules":null,"final":false,"unknown":"%b"}' % Unknown.METER_UNAVAILABLE.encode()
_ENERGY_HEADER: Final = ENERGY_HEADER.lower().encode()
_ENERGY: Final = {b"off": "off", b"on": "on", b"wait": "wait"}
_FORWARDING: Final = State.FORWARDING  # bound here: they are compared for every read of a response
_TUNNEL: Final = State.TUNNEL
_log = logging.getLogger(__name__)


class Exchange:
    """One request and its response."""

    def __init__(self, context: WorkerContext, client: ResponseWriter, head: RequestHead) -> None:
        self._context = context
        self._client = client
        self._head = head
        self._received_ns = now_ns()
        self._since_ns = self._received_ns
        self._request = Request(head, context.ids)
        self._body = self._request.body
        self._choice = BackendChoice(context, self._request)
        self._trace: Trace | None = None
        self._held_error: HeldError | None = None  # of a request that may be sent again
        self._usage_rejected = False  # the backend rejected stream_options; this is the second attempt
        self._request_meter: RequestMeter | None = None
        self._upstream: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._response: Response | None = None
        self._lost: str | None = None  # why the backend connection failed while energy was awaited
        self._state = State.READING

    def _enter(self, state: State) -> None:
        """Change the state; raise :class:`TransitionError` where the table does not allow it."""
        check_transition(self._state, state)
        self._state = state

    @property
    def _slot(self) -> Slot | None:
        return self._choice.slot

    @property
    def closed(self) -> bool:
        """Whether the exchange is over."""
        return self._state is State.CLOSED

    @property
    def tunnel(self) -> bool:
        """Whether both sides switched protocols, so that bytes pass as they are."""
        return self._state is State.TUNNEL

    @property
    def began(self) -> bool:
        """Whether bytes of the response were sent to the client."""
        return self._response is not None and self._response.sent

    def begin(self) -> None:
        """Start the exchange: the request head is complete."""
        if not self._body.reads:
            self._choose_backend()

    def request_body(self, raw: bytes) -> None:
        """Forward or collect bytes of the request body; they include the framing of chunks."""
        body = self._body
        self._since_ns = now_ns()
        if self._upstream is not None:
            self._upstream.write(raw)
            body.passed(raw)
            return
        reads = body.reads
        body.add(raw)
        if not body.reads:
            self._client.pause(paused=True)  # until a connection is open
            if reads:  # too large to be collected
                self._choose_backend()

    def request_end(self) -> None:
        """Handle the end of the request body."""
        self._body.ended = True
        if self._body.reads:
            self._choose_backend()

    def send(self, data: bytes) -> None:
        """Forward bytes of a tunnel to the backend."""
        self._since_ns = now_ns()
        if self._upstream is not None:
            self._upstream.write(data)

    def _choose_backend(self) -> None:
        """Read the collected body, choose a backend and assign the request to it."""
        head, context, request = self._head, self._context, self._request
        listing = context.balancer.listing
        if request.path == "/v1/models" and head.method == b"GET" and listing is not None:
            self._respond(listing)
            return
        if request.route is not None:
            self._trace = continue_trace(head.text(b"traceparent"), context.ids.draw(64))
        body = request.read()
        self._assign(self._choice.first(body))

    def _respond(self, body: bytes) -> None:
        """Serve the merged list of ``/v1/models``."""
        self._end()
        keep = self._head.keep_alive and self._body.ended
        self._client.send_response(body, self._request.id, close=not keep)
        if keep:
            self._client.finish_response(keep=True)

    def _assign(self, slot: Slot | None) -> None:
        """Send the request to a backend; without one, send the error of the balancer."""
        if slot is None:
            why = self._choice.refusal()
            self._send_error(why.status, why.message, why.code, why.retry_seconds)
        else:
            self._send_to(slot)

    def _send_to(self, slot: Slot) -> None:
        connection = self._context.pools[slot].acquire()
        if connection is not None:
            self._send_request(connection)
        else:
            self._connect()

    def _open_meter(self) -> RequestMeter | None:
        """Report the request to the meter, once; return its meter, or None where it is not metered."""
        slot, request, trace = self._slot, self._request, self._trace
        if self._request_meter is None and slot is not None:
            if trace is not None:  # it has a route
                self._request_meter = start_meter(self._context, request, slot, trace, self._received_ns)
            elif request.job is not None:
                self._request_meter = start_poll(self._context, request.job, self._head.method)
        return self._request_meter

    def _send_request(self, connection: UpstreamConnection) -> None:
        """Send the request, as far as it was received, over ``connection``."""
        head, context, body, request_meter = self._head, self._context, self._body, self._open_meter()
        self._enter(State.WAITING)
        self._upstream = connection
        self._since_ns = now_ns()
        changed = self._with_usage()
        identity = changed is not None
        energy = _ENERGY.get(head.values.get(_ENERGY_HEADER, b"").lower(), context.config.energy_in_response)
        plan = ResponsePlan(
            self._request.id, request_meter, energy, identity, head.method, head.http11, head.keep_alive
        )
        self._response = Response(plan)
        pool = connection.pool
        lines = for_backend(
            head, pool.host, self._request.id, self._trace, self._client.peer,
            b"https" if context.config.tls_certificate else b"http",
            length=body.length if changed is None else len(changed),
            identity=identity or (request_meter is not None and energy != "off"), prefix=pool.prefix,
        )  # fmt: skip
        self._client.pause(paused=False)  # before sending, which may pause it again
        pieces = body.pieces() if changed is None else [changed]
        connection.send_request(self, head.method, b"".join((lines, *pieces)))

    def _with_usage(self) -> bytes | None:
        """Return the body that also requests usage; None if it must be sent unchanged."""
        slot = self._slot
        if self._context.config.usage == "keep" or self._usage_rejected or slot is None:
            return None
        return self._request.with_usage() if slot.no_usage_until_ns < self._since_ns else None

    def _connect(self) -> None:
        """Open a connection to the chosen backend, in a task of its own."""
        self._enter(State.CONNECTING)
        task = asyncio.get_running_loop().create_task(self._connecting())
        self._task = task
        self._context.tasks.add(task)
        task.add_done_callback(self._context.tasks.discard)

    async def _connecting(self) -> None:
        slot = self._slot
        assert slot is not None
        pool = self._context.pools[slot]
        try:
            connection = await pool.connect()
        except (OSError, ValueError) as error:
            self._unreachable(slot, *connect_failure(error, self._context.config))
        else:
            if self.closed:
                connection.abort()
            else:
                self._send_request(connection)

    def _unreachable(self, slot: Slot, status: int, message: str, code: str) -> None:
        """Try another backend, as this one has read no byte of the request; else send the error."""
        other = None if self.closed else self._choice.next()
        if other is None:
            self._failed(status, message, code)
            return
        record_failure(self._context, slot, message)
        if self._request_meter is not None:  # it was sent over an idle connection that had ended
            self._request_meter.close(None, code, cancelled=True)
            self._request_meter = None
        self._task = None
        self._assign(other)

    def _failed(self, status: int, message: str, code: str) -> None:
        if self._slot is not None:
            record_failure(self._context, self._slot, message)
        self._send_error(status, message, code)

    def _send_error(self, status: int, message: str, code: str, retry_seconds: int | None = None) -> None:
        """Close the exchange with an error of the proxy itself, before any byte of a response."""
        if self.closed:
            return
        self._end()
        if (request_meter := self._open_meter()) is not None:
            request_meter.close(status, code)
        # An error has a body, which a client does not expect after HEAD.
        keep = self._head.keep_alive and self._body.ended and self._head.method != b"HEAD"
        self._client.send_error(
            status, message, code, self._request.id, close=not keep, retry_seconds=retry_seconds
        )
        if keep:
            self._client.finish_response(keep=True)

    def _end(self) -> None:
        """Release the backend, the connection and the task; notify nobody."""
        if self.closed:
            return
        self._enter(State.CLOSED)
        self._choice.release()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def cancel(self, error: str = "cancelled") -> None:
        """Cancel the backend request: the client disconnected, or its request is malformed."""
        upstream = self._upstream
        if self.tunnel and upstream is not None:  # deliver its last bytes, such as a close frame
            self._upstream = None
            upstream.close(self._context.config.linger_timeout_seconds)
        self._end()
        if (request_meter := self._open_meter()) is not None:
            request_meter.close(None, error, cancelled=True)

    def pause(self, *, paused: bool) -> None:
        """Pause reading from the backend while the client reads too slowly, or resume."""
        if self._upstream is not None and self._state is not State.AWAITING_ENERGY:
            self._since_ns = now_ns()
            self._upstream.pause(paused=paused)

    def sweep(self, now: int) -> None:
        """Enforce the timeouts of the backend; ``now`` is monotonic nanoseconds."""
        if self._upstream is None or self._state is State.AWAITING_ENERGY:
            return
        config = self._context.config
        if self.tunnel:
            if now - self._since_ns > ns_from_seconds(config.tunnel_idle_timeout_seconds):
                self._end()
                self._client.finish_response(keep=False)
            return
        first = self._response is None or self._response.head is None
        limit = config.first_byte_timeout_seconds if first else config.stall_timeout_seconds
        forwarder = self._upstream.forwarder
        since_ns = max(self._since_ns, forwarder.last_ns) if forwarder is not None else self._since_ns
        if now - since_ns <= ns_from_seconds(limit):
            return
        if first:
            self._failed(504, f"the backend did not answer within {limit:g} s", "backend_timeout")
        else:
            self._abort_response(f"silent for more than {limit:g} s", "backend_stalled")

    def on_writable(self, *, writable: bool) -> None:
        """Pause reading from the client while the backend reads too slowly, or resume."""
        self._client.pause(paused=not writable)

    def on_interim(self, head: ResponseHead) -> None:
        """Forward an interim head, except 100, which the client connection sends itself."""
        if self._head.http11 and head.status != 100:
            self._client.write(interim(head))

    def on_head(self, head: ResponseHead) -> None:
        """Handle the final response head: hold an error that may be retried, else forward it."""
        if head.status == 101 and not self._head.upgrade:
            raise HeadError(502, "the backend switches protocols unasked")
        self._since_ns = now_ns()
        if self._slot is not None:
            record_status(self._context, self._slot, head.status, self._since_ns)
        response = self._response
        assert response is not None
        searches = self._choice.searches(head.status) and self._body.repeatable
        if searches or (response.plan.drop_usage and may_refuse(head.status)):
            self._enter(State.HOLDING)
            self._held_error = HeldError(head)
            return
        if self._usage_rejected and self._slot is not None and head.status < 400:
            _log.warning("backend %s: does not take stream_options: not added", self._slot.backend.url)
            self._slot.no_usage_until_ns = self._since_ns + ns_from_seconds(FORGET_SECONDS)
        self._body.forget()  # not sent a second time from here on
        self._enter(State.TUNNEL if head.status == 101 else State.FORWARDING)
        response.begin(head)
        if head.status == 101 and self._upstream is not None:
            self._upstream.tunnel()
            self._upstream.write(self._client.take_buffered())

    def on_body(self, raw: bytes, pieces: list[bytes]) -> None:
        """Handle bytes of the response body: as received, and their payload."""
        self._since_ns = t_ns = now_ns()
        held = self._held_error
        if held is not None:
            held.add(raw, pieces)
            if held.full:
                self._pass_held()
            return
        assert self._response is not None
        self._response.body(raw, pieces, t_ns)

    def on_end(self) -> None:
        """Handle the end of the response: release the connection, or send the request again."""
        held = self._held_error
        repeat = held is not None and held.refuses_usage()
        other = self._choice.next() if held is not None and self._choice.searches(held.head.status) else None
        if not repeat and other is None:
            self._pass_held()
            assert self._response is not None
            self._response.end()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.release(reusable=self._body.ended)
        if repeat and self._slot is not None:
            self._held_error, self._usage_rejected = None, True
            self._send_to(self._slot)
        elif other is not None:
            self._held_error = None
            self._send_to(other)

    def _pass_held(self) -> None:
        """Forward a held error; the rest of it is then forwarded as it is received."""
        held, self._held_error = self._held_error, None
        if held is not None and self._response is not None:
            self._enter(State.FORWARDING)
            self._body.forget()
            held.pass_to(self._response, self._since_ns)

    def on_read(self) -> None:
        """Write all output of one read with one call, and install the fast path if possible."""
        response = self._response
        if response is None or (self._state is not _FORWARDING and self._state is not _TUNNEL):
            return
        data = response.drain()
        if data:
            self._client.write(data)
        if response.awaits_energy:
            self._enter(State.AWAITING_ENERGY)
            if self._upstream is not None:
                self._upstream.pause(paused=True)
            task = self._task = asyncio.get_running_loop().create_task(self._add_energy())
            self._context.tasks.add(task)
            task.add_done_callback(self._context.tasks.discard)
        elif response.done:
            self._end()
            self._client.finish_response(keep=response.keep and self._body.ended)
        elif self._upstream is not None:
            template = response.template
            if template is not None and self._request_meter is not None:
                writer = self._client.fast_writer()
                self._upstream.forwarder = StreamForwarder(template, self._request_meter, writer)

    async def _add_energy(self) -> None:
        """Request the energy from the meter, add it to the response, and resume."""
        response = self._response
        assert response is not None
        config = self._context.config
        wait = config.energy_wait_seconds if response.plan.energy == "wait" else 0.0
        request_meter = response.plan.request_meter
        assert request_meter is not None  # only metered responses carry energy
        received = await self._context.link.request_energy(
            request_meter.request, request_meter.key, wait, wait + _REPLY_SECONDS
        )
        response.add_energy(received or _NO_ENERGY)
        self._enter(State.FORWARDING)
        self.on_read()
        if self.closed:
            return
        if self._lost is not None:
            self.on_lost(self._lost)
        elif self._upstream is not None:
            self._upstream.pause(paused=False)

    def on_lost(self, reason: str) -> None:
        """Handle a failed backend connection: retry where that is safe, else report it."""
        upstream = self._upstream
        if self._state is State.AWAITING_ENERGY:
            self._lost, self._upstream = reason, None
            return
        if self.closed:
            return
        response = self._response
        if self.tunnel:
            self._end()
            self._client.finish_response(keep=False)
        elif upstream is not None and self._request.may_repeat(upstream):
            self._upstream = None
            if upstream.used:  # closed while idle: not a failure of the backend
                self._connect()
            elif self._slot is not None:
                self._unreachable(self._slot, 502, f"the backend did not answer: {reason}", "upstream_reset")
        elif response is None or not response.sent:
            self._failed(502, f"the backend did not answer: {reason}", "upstream_reset")
        else:
            self._abort_response(reason, "upstream_reset")

    def _abort_response(self, reason: str, code: str) -> None:
        """Abort the client connection: the backend failed after its response had begun."""
        if self._slot is not None:
            _log.warning("backend %s failed within a response: %s", self._slot.backend.url, reason)
        response = self._response
        self._end()
        if self._request_meter is not None:
            self._request_meter.close(response.head.status if response and response.head else None, code)
        self._client.abort()
