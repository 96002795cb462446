"""What a relay worker and the meter say to each other, and how it lies on the socket.

One frame is a 4-byte big-endian length and a msgpack array of messages; a worker sends a frame a loop
turn at most. Requests go by a small integer ``key`` (unique within a worker's connection), so that the
message of a chunk is a few bytes. The same stamps reach the core: ``t_ns`` is the host's monotonic clock.
The collector does not look at messages (``gc=False``), nor at events: they are values, never part of a cycle.

Order within a connection: ``Opened`` < ``Chunk``* < ``Closed`` for each key. A worker that must drop
messages drops chunks first and says how many (``Dropped``).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from proxy.core.events import Arrive, End

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024


class Opened(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """A metered request was sent to its backend."""

    key: int
    arrive: Arrive
    method: str = "POST"
    path: str = ""
    server_address: str | None = None
    server_port: int | None = None
    trace_id: str | None = None  # 32 hex digits; made by the relay if the client sent none
    server_span_id: str | None = None  # 16 hex digits: the proxy's SERVER span
    client_span_id: str | None = None  # its CLIENT child, the parent the backend sees
    parent_span_id: str | None = None  # the client's own span, from traceparent
    trace_sampled: bool = True
    max_tokens: int | None = None
    received_ns: int | None = None  # when the request's head reached the proxy


class Chunk(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """One streamed chunk: new tokens in it, -1 where not known."""

    key: int
    t_ns: int
    tokens: int


class Closed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """The answer ended, broke, or the client left."""

    key: int
    end: End
    first_byte_ns: int | None = None
    response_id: str | None = None
    response_model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    error_type: str | None = None  # e.g. "connect_error", "upstream_reset", "cancelled", "503"
    metered: bool = True  # false: compressed or unknown body, tokens could not be read
    unread: tuple[str, ...] = ()  # names of fields that could not be read: "request.model", "response.usage"


class Dropped(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """Messages that did not fit into the bounded buffer, since the last of these."""

    count: int


class Ask(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The joules of a request, for its own answer. Meter replies with ``Told`` of the same ``ask``.

    ``wait_ns`` 0: a provisional value at once; else hold the reply until final, at most so long.
    """

    ask: int
    request: str
    t_ns: int
    wait_ns: int = 0
    output_tokens: int | None = None
    key: int | None = None  # of the request, which tells it from others of that id


class Told(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The reply: an ``EnergyAnswer`` as JSON bytes, ready to be put into the answer."""

    ask: int
    energy: bytes


class BackendState(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """How a relay sees a backend; told once a second."""

    name: str
    state: str  # up, ejected, down
    outstanding: int  # requests, metered or not
    since_ns: int
    reason: str | None = None
    models: tuple[str, ...] = ()  # that it is known to serve; empty: any


class Leaving(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """The relay drains: what runs there may end, and no more is taken."""


class RelayState(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=8):
    """What a relay holds; told once a second."""

    pid: int
    clients: int  # connections
    requests: int  # that run and are metered
    tasks: int
    connections: int  # to backends, in use or kept


ToMeter = Opened | Chunk | Closed | Dropped | Ask | BackendState | Leaving | RelayState
ToRelay = Told

_ENCODER: Final = msgspec.msgpack.Encoder()
_TO_METER: Final = msgspec.msgpack.Decoder(list[ToMeter])
_TO_RELAY: Final = msgspec.msgpack.Decoder(list[ToRelay])


def encode_frame(messages: Sequence[ToMeter | ToRelay]) -> bytes:
    """The frame of some messages, length included."""
    body = _ENCODER.encode(messages)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def encode_frames(messages: Sequence[ToMeter]) -> list[bytes | None]:
    """The same in as many frames as the limit asks for; None for a message that is over it by itself."""
    frame = encode_frame(messages)
    if len(frame) <= LENGTH_BYTES + MAX_FRAME_BYTES:
        return [frame]
    if len(messages) == 1:
        return [None]
    middle = len(messages) // 2
    return encode_frames(messages[:middle]) + encode_frames(messages[middle:])


def decode_to_meter(body: bytes | memoryview) -> list[ToMeter]:
    """Messages of one frame's body; raises ``msgspec.DecodeError`` on a foreign one."""
    return _TO_METER.decode(body)


def decode_to_relay(body: bytes | memoryview) -> list[ToRelay]:
    """Messages of one frame's body; raises ``msgspec.DecodeError`` on a foreign one."""
    return _TO_RELAY.decode(body)


class FrameBuffer:
    """Bytes in, whole frame bodies out, whatever the split."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies completed by ``data``; raises ``ValueError`` on a frame over the limit."""
        buffer = self._buffer
        buffer += data
        bodies = []
        start = 0
        while len(buffer) - start >= LENGTH_BYTES:
            size = int.from_bytes(buffer[start : start + LENGTH_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {size} bytes, at most {MAX_FRAME_BYTES} allowed")
            end = start + LENGTH_BYTES + size
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + LENGTH_BYTES : end]))
            start = end
        del buffer[:start]
        return bodies
