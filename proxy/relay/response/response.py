# Compiled by mypyc: see setup.py.
"""One response: the bytes for the client and the events for the meter. No I/O.

Bytes are forwarded unchanged where the client supports their framing; complete events or bodies are held only
where they are edited.
"""

from collections.abc import Sequence
from typing import Final

from proxy.api.body import BodyReader
from proxy.api.chunks import template_of
from proxy.api.encoding import DecompressionError, Decompressor, decompressor
from proxy.api.native.lines import LineSplitter
from proxy.api.sse import EventSplitter, begins_stream
from proxy.clock import now_ns
from proxy.relay.http.framing import Chunked, Fixed, FramingError, chunk
from proxy.relay.http.headers import for_client
from proxy.relay.http.heads import ResponseHead
from proxy.relay.request_meter import RequestMeter
from proxy.relay.response.reading import CONTENT, NEUTRAL, with_energy
from proxy.relay.response.stream_editor import StreamEditor
from proxy.schema import ENERGY_JOULES_HEADER

# Of a JSON response that energy is added to; a larger one is forwarded without.
_MAX_HELD_BYTES = 64 * 1024 * 1024  # not Final, which the compiled build would fix: a test lowers it
_LAST: Final = b"0\r\n\r\n"
_LINES: Final = frozenset((b"application/x-ndjson", b"application/ndjson", b"application/jsonl"))
_BINARY: Final = b"application/octet-stream"
# Content types that servers send for JSON as well as for streams, or for lack of a better one.
_UNCLEAR: Final = frozenset((b"", b"text/plain", _BINARY))


class ResponsePlan:
    """How a response is to be treated, and properties of its request.

    ``energy``: off, on, wait. ``drop_usage``: the usage chunk is ours, not the client's.
    """

    __slots__ = ("drop_usage", "energy", "http11", "keep_alive", "method", "request_id", "request_meter")

    def __init__(
        self,
        request_id: str,
        request_meter: RequestMeter | None,
        energy: str,
        drop_usage: bool,
        method: bytes,
        http11: bool,
        keep_alive: bool,
    ) -> None:
        self.request_id = request_id
        self.request_meter = request_meter
        self.energy = energy
        self.drop_usage = drop_usage
        self.method = method
        self.http11 = http11
        self.keep_alive = keep_alive


class Response:
    """Receives the parts of a response; ``drain`` returns the bytes to write now."""

    __slots__ = (
        "_body",
        "_decompressor",
        "_editor",
        "_ended",
        "_held",
        "_held_bytes",
        "_lines",
        "_out",
        "_raw",
        "_rechunk",
        "_splitter",
        "_template",
        "_unclear",
        "awaits_energy",
        "done",
        "head",
        "keep",
        "plan",
        "sent",
    )  # fmt: skip

    def __init__(self, plan: ResponsePlan) -> None:
        self.plan = plan
        self.head: ResponseHead | None = None
        self.sent = False  # its head was given to be written
        self.done = False
        self.awaits_energy = False
        self.keep = plan.keep_alive
        self._out: list[bytes] = []
        self._raw = True  # the framing is forwarded, too
        self._rechunk = False
        self._splitter: EventSplitter | None = None
        self._template: tuple[bytes, bytes] | None = None
        self._editor: StreamEditor | None = None  # of events, where some are changed
        self._body: BodyReader | None = None
        self._lines: LineSplitter | None = None
        self._decompressor: Decompressor | None = None
        self._held: list[bytes] | None = None  # a JSON body that energy will be added to
        self._held_bytes = 0
        self._ended = False
        self._unclear = False  # the first bytes of the body show whether it is a stream

    def begin(self, head: ResponseHead) -> None:
        """Decide by its head how a response is read and passed on."""
        self.head = head
        if self.plan.request_meter is not None:
            self._prepare(head)
        if self._held is None and not self._unclear:
            self._write_head(head)

    def _prepare(self, head: ResponseHead) -> None:
        plan, request_meter = self.plan, self.plan.request_meter
        assert request_meter is not None
        coding = head.values.get(b"content-encoding", b"").strip().lower()
        plain = coding in {b"", b"identity"}
        if not plain:
            self._decompressor = decompressor(coding)
            if self._decompressor is None:
                request_meter.metered = False
                return
        kind = head.values.get(b"content-type", b"").partition(b";")[0].strip().lower()
        reading = request_meter.reading
        if reading.dialects:
            reading.read_headers(head.values)
            if kind in _LINES:
                self._lines = LineSplitter()
                return
        if kind == b"text/event-stream":
            self._read_as_stream()
        elif head.body is not None and (kind in _UNCLEAR or kind.endswith(b"json")):
            # Usage is added to the requests of streams only, whatever type the response has.
            self._unclear = plain and (kind in _UNCLEAR or plan.drop_usage)
            self._body = reading.body_reader() if kind != _BINARY else None
            if plain and plan.energy != "off" and kind.endswith(b"json"):
                self._held = []

    def _read_as_stream(self) -> None:
        plan = self.plan
        self._body = self._held = None
        self._splitter = EventSplitter()
        if plan.drop_usage or plan.energy != "off":
            self._editor = StreamEditor(energy=plan.energy != "off", usage_is_ours=plan.drop_usage)

    def _decide(self, beginning: bytes) -> None:
        """Decide by the first bytes of the body whether it is a stream: the content type does not show it."""
        self._unclear = False
        if begins_stream(beginning):
            self._read_as_stream()
        if self._held is None and self.head is not None:
            self._write_head(self.head)

    def _write_head(self, head: ResponseHead, *, reframe: bool = False) -> None:
        body = head.body
        self._raw = isinstance(body, Fixed) or (isinstance(body, Chunked) and self.plan.http11)
        if reframe or self._editor is not None:
            self._raw = False
        chunks = body is not None and not (self._raw and isinstance(body, Fixed))
        self._rechunk = chunks and self.plan.http11 and not self._raw
        framing = b""
        if chunks and self.plan.http11:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif chunks:
            self.keep = False  # HTTP/1.0 has no chunks: the response ends with the connection
        if head.status == 101:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.values.get(b"upgrade", b"websocket")
        elif not self.keep:
            framing += b"Connection: close\r\n"
        elif not self.plan.http11:
            framing += b"Connection: keep-alive\r\n"
        self._head(head, framing, keep_length=not chunks)

    def _head(self, head: ResponseHead, framing: bytes, *, keep_length: bool) -> None:
        self.sent = True
        self._out.append(
            for_client(
                head,
                self.plan.request_id,
                ours=self.plan.request_meter is not None,
                framing=framing,
                keep_length=keep_length,
                keep_coding=self._editor is None,
            )
        )

    def body(self, raw: bytes, pieces: list[bytes], t_ns: int) -> None:
        """Add bytes of the body that came at ``t_ns``: as they were sent, and the payload in them."""
        if self._unclear:
            self._decide(b"".join(pieces))
        if self._splitter is not None or self._body is not None or self._lines is not None:
            self._read_pieces(pieces, t_ns)
        if self._held is not None:
            self._hold(pieces)
        elif self._editor is not None:
            pass  # written by ``take``
        elif self._raw or (self.head and self.head.status == 101):
            self._out.append(raw)
        elif self._rechunk:
            self._out.extend(chunk(piece) for piece in pieces if piece)
        else:
            self._out.extend(pieces)

    def _read_pieces(self, pieces: list[bytes], t_ns: int) -> None:
        if self._decompressor is not None:
            self._read_compressed(self._decompressor, pieces, t_ns)
            return
        for piece in pieces:
            self._read_piece(piece, t_ns)

    def _read_piece(self, piece: bytes, t_ns: int) -> None:
        if self._splitter is not None:
            self._read_events(self._splitter.feed(piece), t_ns)
        elif self._body is not None:
            self._body.feed(piece)
        elif self._lines is not None:
            self._read_lines(self._lines.feed(piece), t_ns)

    def _read_lines(self, lines: list[bytes], t_ns: int) -> None:
        request_meter = self.plan.request_meter
        assert request_meter is not None
        for line in lines:
            tokens = request_meter.reading.read_line(line)
            if tokens:
                request_meter.chunk(t_ns, tokens)

    def _read_compressed(self, decompressor: Decompressor, pieces: Sequence[bytes], t_ns: int) -> None:
        try:
            for piece in pieces:
                for block in decompressor.feed(piece):
                    self._read_piece(block, t_ns)
        except DecompressionError as error:
            if self._editor is not None:  # its events are written decompressed
                raise FramingError(f"the response cannot be decompressed: {error}") from error
            self._splitter = self._body = self._lines = None
            assert self.plan.request_meter is not None
            self.plan.request_meter.metered = False

    def _hold(self, pieces: list[bytes]) -> None:
        """Hold a body back for its energy; give up on one that is too large to be held."""
        held = self._held
        assert held is not None
        held.extend(pieces)
        for piece in pieces:
            self._held_bytes += len(piece)
        if self._held_bytes > _MAX_HELD_BYTES and self.head is not None:
            self._held = None
            self._write_head(self.head, reframe=True)  # the read may have ended within a chunk
            self._out.extend(chunk(piece) if self._rechunk else piece for piece in held if piece)

    def _read_events(self, events: list[bytes], t_ns: int) -> None:
        request_meter = self.plan.request_meter
        assert request_meter is not None
        for event in events:
            tokens, role = request_meter.reading.read_event(event)
            if tokens:
                request_meter.chunk(t_ns, tokens)
            if tokens == 1 and not request_meter.reading.dialects:  # which may count in each event
                self._template = template_of(event)
            if self._editor is not None and not self._editor.add(event, role):
                self._template = None  # chunks like this one have to be edited

    @property
    def template(self) -> tuple[bytes, bytes] | None:
        """Template of chunks that may be forwarded unparsed, for one token each; None if there is none."""
        splitter, body = self._splitter, self.head.body if self.head else None
        if splitter is None or splitter.rest or self._decompressor or not isinstance(body, Chunked):
            return None
        if self._editor is not None and not self._editor.empty:
            return None
        return self._template if body.between and self.plan.http11 else None

    def end(self) -> None:
        """End the body."""
        self._ended = True
        request_meter = self.plan.request_meter
        if self._unclear:
            self._decide(b"")
        if self._body is not None and request_meter is not None:
            request_meter.reading.read_complete(self._body)
            if self._held is not None:
                self._ask_energy()
        elif self._splitter is not None and request_meter is not None:
            self._end_events(self._splitter.rest)
        elif self._lines is not None:
            self._read_lines([self._lines.rest], now_ns())

    def _end_events(self, rest: bytes) -> None:
        """End a stream; its last event may lack the empty line that ends events."""
        role = NEUTRAL
        if rest and self.plan.request_meter is not None:
            tokens, role = self.plan.request_meter.reading.read_event(rest)
            if tokens:
                self.plan.request_meter.chunk(now_ns(), tokens)
        editor = self._editor
        if editor is None:
            return
        if role > CONTENT:
            editor.add(rest, role)
            rest = b""
        editor.end(rest)

    def _ask_energy(self) -> None:
        """Close the request's meter and signal the caller, by ``awaits_energy``, for its energy."""
        self.awaits_energy = True
        self._close()

    def _close(self) -> None:
        if self.plan.request_meter is not None and self.head is not None:
            status = self.head.status
            self.plan.request_meter.close(status, str(status) if status >= 400 else None)

    def drain(self) -> bytes:
        """Return the bytes to be written now."""
        if self._editor is not None:
            self._put(self._editor.drain())
            if self._editor.awaits_energy and not self.awaits_energy:
                self._ask_energy()
        if self._ended and not self.awaits_energy and not self.done:
            self._finish()
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def _put(self, data: bytes) -> None:
        if data:
            self._out.append(chunk(data) if self._rechunk else data)

    def _finish(self) -> None:
        self.done = True
        if self._rechunk:
            self._out.append(_LAST)
        self._close()

    def add_energy(self, energy: bytes) -> None:
        """Add the energy, as JSON, to the body or the event that was held for it."""
        self.awaits_energy = False
        if self._editor is not None:
            self._editor.put_energy(energy)
            return
        head = self.head
        assert head is not None
        assert self._held is not None
        body = with_energy(b"".join(self._held), energy)
        framing = b"Content-Length: %d\r\n" % len(body)
        if b'"joules":null' not in energy:
            joules = energy.partition(b'"joules":')[2].partition(b",")[0]
            framing += b"%b: %b\r\n" % (ENERGY_JOULES_HEADER.encode(), joules)
        if not self.keep:
            framing += b"Connection: close\r\n"
        self._head(head, framing, keep_length=False)
        self._out.append(body)
