"""Decompress bodies incrementally: gzip, deflate and zstd (RFC 9110, section 8.4; RFC 8878).

Brotli and stacked codings are not read; the caller then reports that the body was not read. Output is
produced in blocks, and its total is bounded, so that a small body that grows a thousandfold costs neither
memory nor seconds.

Why no brotli: it needs a library beside the standard one. No engine, nor the web frameworks they use, sends
or reads it by itself; it appears with a content delivery network between proxy and engine, which can be
configured not to compress.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from proxy.zstd import ZstdDecompressor, ZstdError

_BLOCK_BYTES: Final = 64 * 1024
_MAX_BYTES: Final = 256 * 1024 * 1024  # of output; about a second of work
_ANY_HEADER: Final = 47  # zlib's window bits: gzip or zlib, by the header
_GZIP: Final = 0x1F
_INPUT_BYTES: Final = 64 * 1024  # zlib copies the rest of its input for each block of output
_NO_HEADER: Final = -15  # raw deflate, which some servers send as "deflate"


class DecompressionError(ValueError):
    """The body is not of its coding, or decompresses to more than is read."""


class Decompressor:
    """Feed compressed bytes; iterate over blocks of what they hold."""

    def __init__(self, coding: str) -> None:
        self._zstd = ZstdDecompressor() if coding == "zstd" else None
        self._deflate = coding == "deflate"  # whether it has a header is not known yet
        self._zlib = zlib.decompressobj(_ANY_HEADER)
        self._total = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Iterate over the blocks that ``data`` completes; raises :class:`DecompressionError` meanwhile."""
        try:
            for block in self._zstd_blocks(data) if self._zstd is not None else self._zlib_blocks(data):
                self._total += len(block)
                if self._total > _MAX_BYTES:
                    raise DecompressionError(f"more than {_MAX_BYTES} bytes when decompressed")
                yield block
        except (zlib.error, ZstdError, EOFError) as error:
            raise DecompressionError(str(error)) from error

    @property
    def ended(self) -> bool:
        """Whether the input so far ends with a complete member."""
        return self._zstd.eof if self._zstd is not None else self._zlib.eof

    def _zlib_blocks(self, data: bytes) -> Iterator[bytes]:
        if self._deflate and data:
            self._deflate = False
            if data[0] != _GZIP and data[0] & 0x0F != zlib.DEFLATED:  # RFC 1950, section 2.2
                self._zlib = zlib.decompressobj(_NO_HEADER)
        more = True
        while data or more:
            if data and self._zlib.eof:  # members of gzip may follow each other (RFC 1952, section 2.2)
                self._zlib = zlib.decompressobj(_ANY_HEADER)
            block = self._zlib.decompress(data, _BLOCK_BYTES)
            if block:
                yield block
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            more = len(block) == _BLOCK_BYTES  # zlib may hold output of input that it has consumed

    def _zstd_blocks(self, data: bytes) -> Iterator[bytes]:
        zstd = self._zstd
        while zstd is not None:
            if zstd.eof:
                data = zstd.unused_data + data
                if not data:
                    return
                zstd = self._zstd = ZstdDecompressor()
            block = zstd.decompress(data, _BLOCK_BYTES)
            data = b""
            if block:
                yield block
            if not zstd.eof and (zstd.needs_input or not block):
                return


def decompressor(content_encoding: bytes) -> Decompressor | None:
    """Return what reads a ``Content-Encoding``; None for one that cannot be read."""
    coding = content_encoding.strip().lower().removeprefix(b"x-").decode("latin-1")
    return Decompressor(coding) if coding in {"gzip", "deflate", "zstd"} else None


def decompress_beginning(content_encoding: bytes, data: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """Decompress the first ``max_bytes`` of a body; return them, and whether that is all of it.

    A body that is damaged or cut off yields what precedes the damage; a coding that cannot be read, nothing.
    """
    found = decompressor(content_encoding)
    if found is None:
        return b"", False
    blocks: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(data), _INPUT_BYTES):
            for block in found.feed(data[at : at + _INPUT_BYTES]):
                blocks.append(block)
                size += len(block)
                if size > max_bytes:
                    return b"".join(blocks)[:max_bytes], False
    except DecompressionError:
        return b"".join(blocks), False
    return b"".join(blocks), found.ended
