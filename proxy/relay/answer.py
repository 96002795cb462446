"""One answer: what of it is written to the client, what the meter is told. No I/O.

Bytes pass as they are where the client can take their framing; whole events or bodies are held only where
something is added to them or taken out.
"""

from collections import deque
from typing import Final

from proxy.api.chunks import shape_of
from proxy.api.sse import DONE, EventSplitter, data_of
from proxy.relay.answers import with_energy, with_usage_energy
from proxy.relay.call import Call
from proxy.relay.framing import Chunked, Fixed, chunk
from proxy.relay.head import AnswerHead
from proxy.relay.headers import for_client
from proxy.schema import ENERGY_JOULES_HEADER

_JSON_LIMIT: Final = 16 * 1024 * 1024  # an answer read for its usage
_LAST: Final = b"0\r\n\r\n"


class Plan:
    """What is to be done with an answer, and who gets it.

    ``energy``: off, on, wait. ``drop_usage``: the usage chunk is ours, not the client's.
    """

    __slots__ = ("call", "drop_usage", "energy", "http11", "keep_alive", "method", "request_id")

    def __init__(
        self,
        request_id: str,
        call: Call | None,
        energy: str,
        drop_usage: bool,
        method: bytes,
        http11: bool,
        keep_alive: bool,
    ) -> None:
        self.request_id = request_id
        self.call = call
        self.energy = energy
        self.drop_usage = drop_usage
        self.method = method
        self.http11 = http11
        self.keep_alive = keep_alive


class Answer:
    """Takes an answer's parts; ``take`` gives what is to be written now."""

    __slots__ = (
        "_changing", "_ended", "_events", "_hold", "_json", "_json_bytes", "_out", "_raw", "_rechunk",
        "_said", "_shape", "_splitter", "done", "head", "keep", "plan", "sent", "wants_energy",
    )  # fmt: skip

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.head: AnswerHead | None = None
        self.sent = False  # its head was given to be written
        self.done = False
        self.wants_energy = False
        self.keep = plan.keep_alive
        self._out: list[bytes] = []
        self._raw = True  # framing passes, too
        self._rechunk = False
        self._splitter: EventSplitter | None = None
        self._shape: tuple[bytes, bytes] | None = None
        self._json: list[bytes] | None = None  # a body to be read whole
        self._json_bytes = 0
        self._hold = False  # a JSON body that energy will be added to
        self._changing = False
        self._ended = False
        self._said = False
        self._events: deque[bytes] = deque()

    def begin(self, head: AnswerHead) -> None:
        """The head came."""
        self.head = head
        plan, call = self.plan, self.plan.call
        plain = head.values.get(b"content-encoding", b"identity").lower() == b"identity"
        kind = head.values.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if call and not plain:
            call.metered = False
        elif call and kind == b"text/event-stream":
            self._splitter = EventSplitter()
            self._changing = plan.drop_usage or plan.energy != "off"
        elif call and kind == b"application/json" and head.body is not None:
            self._json = []
            self._hold = plan.energy != "off"
        if not self._hold:
            self._write_head(head)

    def _write_head(self, head: AnswerHead) -> None:
        body = head.body
        self._raw = not self._changing and (
            isinstance(body, Fixed) or (isinstance(body, Chunked) and self.plan.http11)
        )
        chunks = body is not None and not (self._raw and isinstance(body, Fixed))
        self._rechunk = chunks and self.plan.http11 and not self._raw
        framing = b""
        if chunks and self.plan.http11:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif chunks:
            self.keep = False  # HTTP/1.0 knows no chunks: the end of the connection is the end
        if head.status == 101:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.values.get(b"upgrade", b"websocket")
        elif not self.keep:
            framing += b"Connection: close\r\n"
        elif not self.plan.http11:
            framing += b"Connection: keep-alive\r\n"
        self._head(head, framing, keep_length=not chunks)

    def _head(self, head: AnswerHead, framing: bytes, *, keep_length: bool) -> None:
        self.sent = True
        self._out.append(
            for_client(
                head,
                self.plan.request_id,
                ours=self.plan.call is not None,
                framing=framing,
                keep_length=keep_length,
            )
        )

    def body(self, raw: bytes, pieces: list[bytes], t_ns: int) -> None:
        """Bytes of the body came at ``t_ns``: as they were sent, and the payload in them."""
        if self._json is not None:
            if self._hold or self._json_bytes <= _JSON_LIMIT:
                for piece in pieces:
                    self._json.append(piece)
                    self._json_bytes += len(piece)
            if self._hold:
                return
        elif self._splitter is not None:
            for piece in pieces:
                self._read(self._splitter.feed(piece), t_ns)
            if self._changing:
                return
        if self._raw or (self.head and self.head.status == 101):
            self._out.append(raw)
        elif self._rechunk:
            self._out.extend(chunk(piece) for piece in pieces if piece)
        else:
            self._out.extend(pieces)

    def _read(self, events: list[bytes], t_ns: int) -> None:
        call = self.plan.call
        assert call is not None
        for event in events:
            tokens, usage = call.reading.read_event(event)
            if tokens:
                call.chunk(t_ns, tokens)
            if tokens == 1:
                self._shape = shape_of(event)
            if self._changing and not (usage and self.plan.drop_usage):
                self._events.append(event)

    @property
    def shape(self) -> tuple[bytes, bytes] | None:
        """If the next bytes are chunks of this shape, they pass as they are, for one more token each."""
        splitter, body = self._splitter, self.head.body if self.head else None
        if splitter is None or splitter.rest or self._events or not isinstance(body, Chunked):
            return None
        return self._shape if body.between and self.plan.http11 else None

    def end(self) -> None:
        """The body is whole."""
        self._ended = True
        call, head = self.plan.call, self.head
        assert head is not None
        if self._json is not None and call is not None:
            if self._json_bytes <= _JSON_LIMIT:
                call.reading.read_body(b"".join(self._json))
            call.close(head.status, str(head.status) if head.status >= 400 else None)
            self.wants_energy = self._hold
        if self._splitter is not None and self._changing and self._splitter.rest:
            self._events.append(self._splitter.rest)

    def take(self) -> bytes:
        """What is to be written now."""
        if self._changing:
            self._take_events()
        if self._ended and not self.wants_energy and not self.done:
            self._finish()
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def _take_events(self) -> None:
        """Pass events on, up to the one that energy goes into."""
        ready = []
        while self._events and not self.wants_energy:
            if self.plan.energy != "off" and not self._said and self._place(self._events[0]) is not None:
                self.wants_energy = True
                assert self.plan.call is not None
                assert self.head is not None
                self.plan.call.close(self.head.status)
            else:
                ready.append(self._events.popleft())
        self._put(b"".join(ready))

    def _place(self, event: bytes) -> str | None:
        data = data_of(event)
        if data == DONE:
            return "done"
        if data is None or b'"usage":' not in data or b'"choices":[]' not in data.replace(b" ", b""):
            return None
        return "usage"

    def _put(self, data: bytes) -> None:
        if data:
            self._out.append(chunk(data) if self._rechunk else data)

    def _finish(self) -> None:
        self.done = True
        if self._rechunk:
            self._out.append(_LAST)
        if self.plan.call is not None and self.head is not None:
            status = self.head.status
            self.plan.call.close(status, str(status) if status >= 400 else None)

    def told(self, energy: bytes) -> None:
        """The meter's answer: it goes into the held body, or to the event that waits."""
        self.wants_energy = False
        if not self._hold:
            self._said = True
            event = self._events.popleft()
            usage = self._place(event) == "usage"
            self._put(with_usage_energy(event, energy) if usage else b": energy " + energy + b"\n\n" + event)
            return
        head = self.head
        assert head is not None
        assert self._json is not None
        body = with_energy(b"".join(self._json), energy)
        framing = b"Content-Length: %d\r\n" % len(body)
        if b'"joules":null' not in energy:
            joules = energy.partition(b'"joules":')[2].partition(b",")[0]
            framing += b"%b: %b\r\n" % (ENERGY_JOULES_HEADER.encode(), joules)
        if not self.keep:
            framing += b"Connection: close\r\n"
        self._head(head, framing, keep_length=False)
        self._out.append(body)
