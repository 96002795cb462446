"""A small, valid PNG of any size: a vertical gradient, other for other requests."""

import struct
import zlib
from functools import lru_cache


@lru_cache(maxsize=32)
def image(width: int, height: int, seed: int = 0) -> bytes:
    """Bytes of an RGB PNG; a few kilobytes, as rows of one colour compress well."""
    tint = seed % 256
    rows = b"".join(
        b"\0" + bytes((255 * row // height, tint, 255 - 255 * row // height)) * width for row in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(rows, 1))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
