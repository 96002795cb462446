"""Compressed responses are read piece by piece."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from proxy.api import encoding
from proxy.api.encoding import DecompressionError, decompressor
from proxy.zstd import compress

DATA = b'{"usage":{"output_tokens":7}}' * 20_000


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODINGS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress),
    (b"X-GZIP", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", raw_deflate),
    (b"zstd", compress),
]


@pytest.mark.parametrize(("coding", "make"), CODINGS)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("data", [DATA, b"a" * (1 << 18), b""])
def test_any_split_gives_the_same_bytes(
    coding: bytes, make: Callable[[bytes], bytes], piece: int, data: bytes
) -> None:
    found = decompressor(coding)
    assert found is not None
    packed = make(data) + make(data)  # members may follow each other
    if coding == b"deflate":
        packed = make(data)
    out = b"".join(b for at in range(0, len(packed), piece) for b in found.feed(packed[at : at + piece]))
    assert out == (data if coding == b"deflate" else data + data)


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_a_body_of_another_coding_is_an_error(coding: bytes) -> None:
    found = decompressor(coding)
    assert found is not None
    with pytest.raises(DecompressionError):
        list(found.feed(b'{"usage": 1}'))


@pytest.mark.parametrize("make", [gzip.compress, compress])
def test_a_body_that_grows_beyond_all_bounds_is_given_up(
    make: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_MAX_BYTES", 1 << 20)
    found = decompressor(b"gzip" if make is gzip.compress else b"zstd")
    assert found is not None
    with pytest.raises(DecompressionError, match="more than"):
        list(found.feed(make(b"\0" * (1 << 22))))


@pytest.mark.parametrize("coding", [b"br", b"gzip, br", b"compress"])
def test_other_codings_are_not_read(coding: bytes) -> None:
    assert decompressor(coding) is None
