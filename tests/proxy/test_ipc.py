import pytest

from proxy.core.events import Arrive, End
from proxy.ipc import (
    MAX_FRAME_BYTES,
    Chunk,
    Closed,
    Dropped,
    EnergyQuery,
    EnergyReply,
    FrameBuffer,
    Opened,
    ToMeter,
    decode_to_meter,
    decode_to_relay,
    encode_frame,
    encode_frames,
)

MESSAGES: list[ToMeter] = [
    Opened(1, Arrive(5, "r", devices=("gpu0",)), trace_id="ab"),
    Chunk(1, 6, -1),
    Closed(1, End(7, "r", 200, False, 1, 2, 3), finish_reasons=("stop",)),
    Dropped(4),
    EnergyQuery(9, "r", 8, 10),
]


def test_frames_come_back_whole_byte_by_byte() -> None:
    stream = encode_frame(MESSAGES) + encode_frame([Dropped(1)])
    frames, bodies = FrameBuffer(), []
    for index in range(len(stream)):
        bodies += frames.feed(stream[index : index + 1])
    assert [decode_to_meter(body) for body in bodies] == [MESSAGES, [Dropped(1)]]


def test_replies_come_back() -> None:
    (body,) = FrameBuffer().feed(encode_frame([EnergyReply(3, b"{}")]))
    assert decode_to_relay(body) == [EnergyReply(3, b"{}")]


def test_a_frame_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        FrameBuffer().feed(b"\xff\xff\xff\xff")


def test_what_is_too_much_for_a_frame_comes_in_several_and_a_giant_is_left_out() -> None:
    small = [Closed(n, End(0, "x" * 1_000_000)) for n in range(40)]
    giant = Closed(99, End(0, "y" * MAX_FRAME_BYTES))
    frames = encode_frames([*small, giant])
    assert frames.count(None) == 1
    buffer = FrameBuffer()
    bodies = [body for frame in frames if frame is not None for body in buffer.feed(frame)]
    assert [m for body in bodies for m in decode_to_meter(body)] == small
    assert encode_frames(small[:2]) == [encode_frame(small[:2])]
