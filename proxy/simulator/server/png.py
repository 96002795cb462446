"""A small, valid PNG of any size: two colours, one above the other, other ones for other requests."""

import struct
import zlib
from functools import lru_cache


@lru_cache(maxsize=64)
def image(width: int, height: int, seed: int = 0) -> bytes:
    """Bytes of a PNG with one bit a pixel: even a large one is made in a moment."""
    row = -(-width // 8)
    upper = height // 2
    rows = (b"\0" + bytes(row)) * upper + (b"\0" + b"\xff" * row) * (height - upper)
    head = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    tint = seed % 256
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"PLTE", bytes((tint, 128, 255 - tint, 255 - tint, tint, 128)))
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
