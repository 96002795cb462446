"""Messages between a relay worker and the meter, and their framing on the Unix socket.

A frame is a 4-byte big-endian length and a msgpack array of messages; a worker sends at most one frame per
turn of its event loop. Requests are identified by a small integer ``key``, unique within the connection of
a worker, so that the message of a chunk takes a few bytes. All stamps are nanoseconds of the host's monotonic
clock. The garbage collector skips messages and events (``gc=False``): they are values, never part of a cycle.

Order within a connection: ``Opened``, any number of ``Chunk``, ``Closed`` for each key. A worker whose buffer
is full discards chunks first and reports their number (``Dropped``).

Only the relay and the meter import this module. The core and the exporters see
:mod:`proxy.core.request_events` instead.
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
    received_ns: int | None = None  # when the request head reached the proxy


class Chunk(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """One streamed chunk: new tokens in it, -1 where not known."""

    key: int
    t_ns: int
    tokens: int


class Closed(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """The response ended or failed, or the client disconnected."""

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
    """Number of messages discarded because the bounded buffer was full, since the last such message."""

    count: int


class EnergyQuery(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """Query for the joules of one request; the meter replies with an ``EnergyReply`` of the same number.

    ``wait_ns`` 0: reply at once with a provisional value; otherwise wait at most that long for the final one.
    """

    number: int
    request: str
    t_ns: int
    wait_ns: int = 0
    output_tokens: int | None = None
    key: int | None = None  # distinguishes requests that share an id


class EnergyReply(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """Reply to ``EnergyQuery``: the energy object as JSON bytes, ready to be inserted into the response."""

    number: int
    energy: bytes


class BackendState(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """State of a backend as seen by a relay, sent once a second."""

    name: str
    state: str  # up, ejected, down
    outstanding: int  # requests, metered or not
    since_ns: int
    reason: str | None = None
    models: tuple[str, ...] = ()  # models it serves; empty: not known


class Leaving(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """The relay drains: running requests may end, no new ones are accepted."""


class RelayState(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=8):
    """Connections and tasks of a relay, sent once a second."""

    pid: int
    clients: int  # connections
    requests: int  # metered requests in flight
    tasks: int
    connections: int  # to backends, in use or idle


class JobReport(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=9):
    """A request is a job that its backend accepted; sent after each look at its state."""

    key: int
    t_ns: int
    started_ns: int | None = None  # when its work began; None: it waits
    end_ns: int | None = None  # when its work is expected to end


ToMeter = JobReport | Opened | Chunk | Closed | Dropped | EnergyQuery | BackendState | Leaving | RelayState
ToRelay = EnergyReply

_ENCODER: Final = msgspec.msgpack.Encoder()
_TO_METER: Final = msgspec.msgpack.Decoder(list[ToMeter])
_TO_RELAY: Final = msgspec.msgpack.Decoder(list[ToRelay])


def encode_frame(messages: Sequence[ToMeter | ToRelay]) -> bytes:
    """Return messages as one frame, length included; ``encode_frames`` applies the size limit."""
    body = _ENCODER.encode(messages)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def encode_frames(messages: Sequence[ToMeter]) -> list[bytes | None]:
    """Return messages as frames of at most ``MAX_FRAME_BYTES``; None for a message that exceeds it alone."""
    frame = encode_frame(messages)
    if len(frame) <= LENGTH_BYTES + MAX_FRAME_BYTES:
        return [frame]
    if len(messages) == 1:
        return [None]
    middle = len(messages) // 2
    return encode_frames(messages[:middle]) + encode_frames(messages[middle:])


def decode_to_meter(body: bytes | memoryview) -> list[ToMeter]:
    """Decode the body of one frame; raises ``msgspec.DecodeError`` if it is malformed."""
    return _TO_METER.decode(body)


def decode_to_relay(body: bytes | memoryview) -> list[ToRelay]:
    """Decode the body of one frame; raises ``msgspec.DecodeError`` if it is malformed."""
    return _TO_RELAY.decode(body)


class FrameBuffer:
    """Reassembles frames from a byte stream that was split anywhere."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frame bodies completed by ``data``; raises ``ValueError`` on a frame over the limit."""
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
