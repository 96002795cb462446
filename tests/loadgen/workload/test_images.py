import random
import struct
import zlib

import pytest

from loadgen.workload.images import data_url, parse_size, png


@pytest.mark.parametrize(("width", "height"), [(1, 1), (32, 32), (33, 70), (512, 384)])
def test_a_png_has_the_requested_size(width: int, height: int) -> None:
    made = png(width, height, random.Random(1))
    assert made.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(made):
        (length,) = struct.unpack(">I", made[at : at + 4])
        kind, data = made[at + 4 : at + 8], made[at + 8 : at + 8 + length]
        assert struct.unpack(">I", made[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (width, height)
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (width + 1)


def test_images_differ_and_are_reproducible_by_seed() -> None:
    assert data_url(64, 64, random.Random(1)) == data_url(64, 64, random.Random(1))
    assert data_url(64, 64, random.Random(1)) != data_url(64, 64, random.Random(2))


@pytest.mark.parametrize("text", ["", "512", "x512", "0x5", "9999x5", "5x5x5", "-1x5"])
def test_malformed_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="512x512"):
        parse_size(text, "--picture")
    assert parse_size("640x480", "--picture") == (640, 480)
