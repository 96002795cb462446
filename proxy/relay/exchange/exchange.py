# Compiled by mypyc: see setup.py.
"""One request through the proxy: bytes through, events out.

The answer passes byte for byte, as it comes, unless the operator or the client asked for energy in it. A
client that leaves cancels its backend request at once; a backend that dies within an answer reaches the
client as a broken stream, never as a clean end.
"""

import asyncio
import logging
from typing import Final

from proxy.api.fields import MAX_TEXT_LENGTH
from proxy.clock import now_ns
from proxy.core.events import Arrive
from proxy.relay.client_interface import Sink
from proxy.relay.context import Shared
from proxy.relay.exchange.held_error import FORGET_SECONDS, HeldError, may_refuse
from proxy.relay.exchange.request import Request
from proxy.relay.http.headers import for_backend, interim
from proxy.relay.http.heads import AnswerHead, HeadError, RequestHead
from proxy.relay.http.trace_context import Trace, continue_trace
from proxy.relay.request_meter import Call
from proxy.relay.response.fast_path import Lane
from proxy.relay.response.response import Answer, Plan
from proxy.relay.upstreams.balancer import Slot
from proxy.relay.upstreams.connections import Upstream, connect_failure
from proxy.schema import ENERGY_HEADER
from proxy.units import ns_from_seconds

_ANSWER_SECONDS: Final = 0.2  # for a provisional value; it is there at once, this bounds a dead meter
_NO_ENERGY: Final = b'{"joules":null,"final":false,"unknown":"meter_unavailable"}'
_WISH: Final = ENERGY_HEADER.lower().encode()
_ENERGY: Final = {b"off": "off", b"on": "on", b"wait": "wait"}
_log = logging.getLogger(__name__)


class Exchange:
    """A request and its answer."""

    def __init__(self, shared: Shared, client: Sink, head: RequestHead) -> None:
        self._shared = shared
        self._client = client
        self._head = head
        self._received_ns = now_ns()
        self._since_ns = self._received_ns
        self._request = Request(head, shared.ids)
        self._body = self._request.body
        self._key: int | None = None  # of what stays with one backend
        self._tried: list[Slot] = []  # backends that could not be reached
        self._trace: Trace | None = None
        self._identity = False  # usage was asked for in the client's stead
        self._held_error: HeldError | None = None  # of a request that we changed
        self._usage_refused = False  # so this is its second try
        self._call: Call | None = None
        self._slot: Slot | None = None
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._asking = False
        self._lost: str | None = None
        self._over = False
        self.tunnel = False

    @property
    def began(self) -> bool:
        """Whether bytes of the answer went to the client."""
        return self._answer is not None and self._answer.sent

    def begin(self) -> None:
        """The head is there."""
        if not self._body.reads:
            self._open()

    def request_body(self, raw: bytes) -> None:
        """Take bytes of the request's body as they came: with the framing of chunks."""
        body = self._body
        self._since_ns = now_ns()
        if self._upstream is not None:
            self._upstream.write(raw)
            body.passed(raw)
            return
        reads = body.reads
        body.add(raw)
        if not body.reads:
            self._client.pause(paused=True)  # until the connection is there
            if reads:  # it is too large to be read
                self._open()

    def request_end(self) -> None:
        """The request is whole."""
        self._body.ended = True
        if self._body.reads:
            self._open()

    def send(self, data: bytes) -> None:
        """Bytes of a tunnel, from the client."""
        self._since_ns = now_ns()
        if self._upstream is not None:
            self._upstream.write(data)

    def _open(self) -> None:
        """Read what is asked, choose a backend."""
        head, shared, request = self._head, self._shared, self._request
        listing = shared.balancer.listing
        if request.path == "/v1/models" and head.method == b"GET" and listing is not None:
            self._tell(listing)
            return
        if request.route is not None:
            self._trace = continue_trace(head.text(b"traceparent"), shared.ids.take(64))
        body = request.read()
        if shared.keys is not None:
            self._key = shared.keys.key(head, body)
        self._aim(shared.balancer.take(request.fields.model, now_ns(), self._key))

    def _tell(self, body: bytes) -> None:
        """What the proxy itself knows best."""
        self._end()
        keep = self._head.keep_alive and self._body.ended
        self._client.say(body, self._request.id, close=not keep)
        if keep:
            self._client.finished(keep=True)

    def _aim(self, slot: Slot | None) -> None:
        """Send the request to a backend, over a connection that is open or will be."""
        self._slot = slot
        if slot is None:
            why = self._shared.balancer.refusal(self._request.fields.model, now_ns())
            self._refuse(why.status, why.message, why.code, why.retry_seconds)
            return
        self._send_to(slot)

    def _send_to(self, slot: Slot) -> None:
        connection = self._shared.pools[slot].take()
        if connection is not None:
            self._use(connection)
        else:
            self._connect()

    def _metered(self) -> Call | None:
        """The call, told to the meter; None where nothing is metered, or none was to be sent."""
        slot, request, trace = self._slot, self._request, self._trace
        route = request.route
        if self._call is not None or slot is None or route is None or trace is None:
            return self._call
        tenant = self._shared.config.tenant_header
        arrive = Arrive(
            now_ns(),
            self._request.id,
            route,
            request.model,
            bool(request.fields.stream),
            (),  # the meter knows which devices are there, and maps the backend to them
            (self._head.text(tenant.lower().encode()) or "")[:MAX_TEXT_LENGTH] or None if tenant else None,
            slot.backend.name or None,
        )
        pool = self._shared.pools[slot]
        call = self._call = Call(self._shared.link, arrive, pool.address, pool.port)
        path = request.path[:MAX_TEXT_LENGTH]
        call.open(trace, self._received_ns, path, request.output_limit, request.unread)
        return call

    def _use(self, connection: Upstream) -> None:
        """Tell the meter, send what there is of the request."""
        head, shared, body, call = self._head, self._shared, self._body, self._metered()
        self._upstream = connection
        self._since_ns = now_ns()
        changed = self._with_usage()
        self._identity = changed is not None
        energy = _ENERGY.get(head.values.get(_WISH, b"").lower(), shared.config.energy_in_response)
        plan = Plan(self._request.id, call, energy, self._identity, head.method, head.http11, head.keep_alive)
        self._answer = Answer(plan)
        pool = connection.pool
        lines = for_backend(
            head, pool.host, self._request.id, self._trace, self._client.peer,
            b"https" if shared.config.tls_certificate else b"http",
            length=body.length if changed is None else len(changed),
            identity=self._identity or (call is not None and energy != "off"), prefix=pool.prefix,
        )  # fmt: skip
        self._client.pause(paused=False)  # before it is asked, which may pause it again
        pieces = body.pieces() if changed is None else [changed]
        connection.ask(self, head.method, b"".join((lines, *pieces)))

    def _with_usage(self) -> bytes | None:
        """Return the body that asks for usage, if this backend may be asked; else None."""
        slot = self._slot
        if self._shared.config.usage == "keep" or self._usage_refused or slot is None:
            return None
        return self._request.with_usage() if slot.no_usage_until_ns < self._since_ns else None

    def _connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connecting())
        self._task = task
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)

    async def _connecting(self) -> None:
        slot = self._slot
        assert slot is not None
        pool = self._shared.pools[slot]
        try:
            connection = await pool.connect()
        except (OSError, ValueError) as error:
            self._unreachable(slot, *connect_failure(error, self._shared.config))
        else:
            if self._over:
                connection.abort()
            else:
                self._use(connection)

    def _unreachable(self, slot: Slot, status: int, message: str, code: str) -> None:
        """Not a byte of the request was sent, or none was read: another backend may take it."""
        shared = self._shared
        self._tried.append(slot)
        take = shared.balancer.take
        other = None if self._over else take(self._request.fields.model, now_ns(), self._key, self._tried)
        if other is None:
            self._failed(status, message, code)
            return
        self._blame(slot, message)
        shared.balancer.release(slot)
        if self._call is not None:  # it was sent over a kept connection that had ended
            self._call.close(None, code, cancelled=True)
            self._call = None
        self._task = None
        self._aim(other)

    def _blame(self, slot: Slot, message: str) -> None:
        left_out = self._shared.balancer.failed(slot, now_ns(), message)
        _log.warning("backend %s: %s%s", slot.backend.url, message, ": left out" if left_out else "")

    def _judge(self, slot: Slot, status: int) -> None:
        if self._shared.balancer.answered(slot, status, self._since_ns):
            _log.warning("backend %s: answers with %d: left out", slot.backend.url, status)

    def _failed(self, status: int, message: str, code: str) -> None:
        if self._slot is not None:
            self._blame(self._slot, message)
        self._refuse(status, message, code)

    def _refuse(self, status: int, message: str, code: str, retry_seconds: int | None = None) -> None:
        """An error of our own, before the first byte of an answer."""
        if self._over:
            return
        self._end()
        if (call := self._metered()) is not None:
            call.close(status, code)
        keep = (
            self._head.keep_alive and self._body.ended and self._head.method != b"HEAD"
        )  # the error has a body
        self._client.refuse(
            status, message, code, self._request.id, close=not keep, retry_seconds=retry_seconds
        )
        if keep:
            self._client.finished(keep=True)

    def _end(self) -> None:
        """Give everything back; says nothing to anyone."""
        if self._over:
            return
        self._over = True
        if self._slot is not None:
            self._shared.balancer.release(self._slot)
        if self._task is not None and self._task is not _current():
            self._task.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def cancel(self, error: str = "cancelled") -> None:
        """The client left, or broke its request: so does its backend request, at once."""
        upstream = self._upstream
        if self.tunnel and upstream is not None:  # what it sent last arrives: a close frame, say
            self._upstream = None
            upstream.close(self._shared.config.linger_timeout_seconds)
        self._end()
        if (call := self._metered()) is not None:
            call.close(None, error, cancelled=True)

    def pause(self, *, paused: bool) -> None:
        """The client reads too slowly, or has caught up."""
        if self._upstream is not None and not self._asking:
            self._since_ns = now_ns()
            self._upstream.pause(paused=paused)

    def sweep(self, now: int) -> None:
        """End a wait for the backend that took too long."""
        if self._upstream is None or self._asking:
            return
        config = self._shared.config
        if self.tunnel:
            if now - self._since_ns > ns_from_seconds(config.tunnel_idle_timeout_seconds):
                self._end()
                self._client.finished(keep=False)
            return
        first = self._answer is None or self._answer.head is None
        limit = config.first_byte_timeout_seconds if first else config.stall_timeout_seconds
        lane = self._upstream.lane
        since_ns = max(self._since_ns, lane.last_ns) if lane is not None else self._since_ns
        if now - since_ns <= ns_from_seconds(limit):
            return
        if first:
            self._failed(504, f"the backend did not answer within {limit:g} s", "backend_timeout")
        else:
            self._broken(f"silent for more than {limit:g} s", "backend_stalled")

    def on_writable(self, *, writable: bool) -> None:
        """The backend reads too slowly, or has caught up."""
        self._client.pause(paused=not writable)

    def on_interim(self, head: AnswerHead) -> None:
        """Passed on, but for 100: a client that asked for it has it already."""
        if self._head.http11 and head.status != 100:
            self._client.write(interim(head))

    def on_head(self, head: AnswerHead) -> None:
        """The answer begins."""
        if head.status == 101 and not self._head.upgrade:
            raise HeadError(502, "the backend switches protocols unasked")
        self._since_ns = now_ns()
        if self._slot is not None:
            self._judge(self._slot, head.status)
        if self._identity and may_refuse(head.status):
            self._held_error = HeldError(head)
            return
        if self._usage_refused and self._slot is not None and head.status < 400:
            _log.warning("backend %s: does not take stream_options: not added", self._slot.backend.url)
            self._slot.no_usage_until_ns = self._since_ns + ns_from_seconds(FORGET_SECONDS)
        self._body.forget()  # it will not be sent again
        assert self._answer is not None
        self._answer.begin(head)
        if head.status == 101 and self._upstream is not None:
            self.tunnel = True
            self._upstream.tunnel()
            self._upstream.write(self._client.rest())

    def on_body(self, raw: bytes, pieces: list[bytes]) -> None:
        """Bytes of the answer."""
        self._since_ns = t_ns = now_ns()
        held = self._held_error
        if held is not None:
            held.add(raw, pieces)
            if held.full:
                self._pass_held()
            return
        assert self._answer is not None
        self._answer.body(raw, pieces, t_ns)

    def on_end(self) -> None:
        """The answer is whole."""
        held = self._held_error
        again = held is not None and held.refuses_usage()
        if not again:
            self._pass_held()
            assert self._answer is not None
            self._answer.end()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.release(reusable=self._body.ended)
        if again and self._slot is not None:
            self._held_error, self._usage_refused = None, True
            self._send_to(self._slot)

    def _pass_held(self) -> None:
        """Pass on an error that was held, and what follows of it."""
        held, self._held_error = self._held_error, None
        if held is not None and self._answer is not None:
            self._body.forget()
            held.pass_to(self._answer, self._since_ns)

    def on_read(self) -> None:
        """All bytes of one read were taken: write what they give, in one write."""
        answer = self._answer
        if answer is None or self._asking or self._over:
            return
        data = answer.take()
        if data:
            self._client.write(data)
        if answer.wants_energy:
            self._asking = True
            if self._upstream is not None:
                self._upstream.pause(paused=True)
            task = self._task = asyncio.get_running_loop().create_task(self._ask())
            self._shared.tasks.add(task)
            task.add_done_callback(self._shared.tasks.discard)
        elif answer.done:
            self._end()
            self._client.finished(keep=answer.keep and self._body.ended)
        elif self._upstream is not None:
            shape = answer.shape
            if shape is not None and self._call is not None:
                self._upstream.lane = Lane(shape, self._call, self._client.writer())

    async def _ask(self) -> None:
        """Put the energy into the answer, then go on with it."""
        answer = self._answer
        assert answer is not None
        config = self._shared.config
        wait = config.energy_wait_seconds if answer.plan.energy == "wait" else 0.0
        call = answer.plan.call
        assert call is not None  # energy is put into metered answers alone
        told = await self._shared.link.ask(call.request, call.key, wait, wait + _ANSWER_SECONDS)
        answer.told(told or _NO_ENERGY)
        self._asking = False
        self.on_read()
        if self._over or self._asking:
            return
        if self._lost is not None:
            self.on_lost(self._lost)
        elif self._upstream is not None:
            self._upstream.pause(paused=False)

    def on_lost(self, reason: str) -> None:
        """The backend died, or speaks no HTTP."""
        upstream = self._upstream
        if self._asking:
            self._lost, self._upstream = reason, None
            return
        if self._over:
            return
        answer = self._answer
        if self.tunnel:
            self._end()
            self._client.finished(keep=False)
        elif upstream is not None and self._request.may_repeat(upstream):
            self._upstream = None
            if upstream.used:  # it had ended meanwhile: the backend is not to blame
                self._connect()
            elif self._slot is not None:
                self._unreachable(self._slot, 502, f"the backend did not answer: {reason}", "upstream_reset")
        elif answer is None or not answer.sent:
            self._failed(502, f"the backend did not answer: {reason}", "upstream_reset")
        else:
            self._broken(reason, "upstream_reset")

    def _broken(self, reason: str, code: str) -> None:
        """Within an answer: a broken stream."""
        if self._slot is not None:
            _log.warning("backend %s broke within an answer: %s", self._slot.backend.url, reason)
        answer = self._answer
        self._end()
        if self._call is not None:
            self._call.close(answer.head.status if answer and answer.head else None, code)
        self._client.abort()


def _current() -> asyncio.Task[object] | None:
    return asyncio.current_task()
