"""Figures for vision inputs: real PNG files, each request's its own, so that no cache serves them."""

import base64
import random
import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CELL = 32  # pixels
_LARGEST = 4096  # pixels per side


def parse_size(text: str, option: str) -> tuple[int, int]:
    """Parse width and height of ``512x512``; raises ``ValueError`` with the option and an example."""
    width, _, height = text.partition("x")
    digits = width + height
    if not (width and height and digits.isascii() and digits.isdecimal() and len(digits) <= 8) or not all(
        1 <= int(side) <= _LARGEST for side in (width, height)
    ):
        raise ValueError(f"{option} {text!r}: write WIDTHxHEIGHT up to {_LARGEST}, such as 512x512")
    return int(width), int(height)


def png(width: int, height: int, rng: random.Random) -> bytes:
    """Return a grey checkerboard of random cells, which is fast to generate."""
    across = -(-width // _CELL)
    rows = []
    for _ in range(-(-height // _CELL)):
        shades = rng.randbytes(across)
        rows.append(b"\0" + b"".join(bytes((shade,)) * _CELL for shade in shades)[:width])
    pixels = b"".join(row * _CELL for row in rows)[: height * (width + 1)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels, 1)) + _chunk(b"IEND", b"")
    return _SIGNATURE + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_url(width: int, height: int, rng: random.Random) -> str:
    """Return an image as a data URL for ``image_url``."""
    return "data:image/png;base64," + base64.b64encode(png(width, height, rng)).decode()
