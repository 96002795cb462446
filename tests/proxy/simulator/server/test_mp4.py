import struct

import pytest

from proxy.simulator.server import mp4


def boxes(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + size]
        at += size
    assert at == len(data)
    return found


@pytest.mark.parametrize("frames", [1, 81])
def test_samples_are_where_the_table_says(frames: int) -> None:
    data = mp4.film(frames, 16)
    top = boxes(data)
    assert list(top) == [b"ftyp", b"moov", b"mdat"]
    media = boxes(boxes(boxes(top[b"moov"])[b"trak"])[b"mdia"])
    timescale, duration = struct.unpack_from(">II", media[b"mdhd"], 12)
    assert (timescale, duration) == (16, frames)
    table = boxes(boxes(media[b"minf"])[b"stbl"])
    (start,) = struct.unpack_from(">I", table[b"stco"], 8)
    sizes = struct.unpack_from(f">{frames}I", table[b"stsz"], 12)
    kinds = []
    for size in sizes:
        assert struct.unpack_from(">I", data, start)[0] == size - 4
        kinds.append(data[start + 4] & 0x1F)
        start += size
    assert start == len(data)
    assert kinds == [5] + [1] * (frames - 1), "a key frame, then frames that change nothing"


def test_no_byte_sequence_of_a_frame_needs_escaping() -> None:
    data = boxes(mp4.film(40, 16))[b"mdat"]
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        unit = data[at + 4 : at + 4 + size]
        assert all(bytes((0, 0, low)) not in unit for low in range(4))
        at += 4 + size
