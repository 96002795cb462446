import struct
import zlib

from proxy.simulator.server import png


def test_every_chunk_is_whole_and_the_pixels_are_all_there() -> None:
    data = png.image(40, 30, seed=7)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (40, 30)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 30 * (1 + 5)


def test_large_images_are_small_files() -> None:
    assert len(png.image(1024, 1024)) < 20_000
