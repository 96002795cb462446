"""A small, valid MP4: one grey H.264 frame of 64 x 64 pixels, repeated.

The first frame is stored without compression (I_PCM macroblocks), the others encode that nothing has changed
(ITU-T H.264 sections 7.3.2 to 7.3.5); boxes as in ISO 14496-12 and -15. A real encoder is not needed.
"""

import struct
from typing import Final

SIDE: Final = 64
_BLOCKS: Final = (SIDE // 16) ** 2
_GREY: Final = 0x80
_UNITY: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


class _Bits:
    """A bit string, most significant first."""

    def __init__(self) -> None:
        self._bits: list[int] = []

    def put(self, value: int, width: int) -> "_Bits":
        """Append a number of fixed width, u(n)."""
        self._bits += [value >> i & 1 for i in reversed(range(width))]
        return self

    def exp(self, *values: int) -> "_Bits":
        """Numbers in Exp-Golomb code, ue(v)."""
        for value in values:
            self.put(value + 1, 2 * (value + 1).bit_length() - 1)
        return self

    def align(self) -> "_Bits":
        """Append zero bits up to the next byte boundary."""
        return self.put(0, -len(self._bits) % 8)

    def end(self) -> bytes:
        """With the stop bit, as bytes."""
        self.put(1, 1).align()
        return self.bytes()

    def bytes(self) -> bytes:
        """Return the bits as bytes; call ``align`` before."""
        return int("".join(map(str, self._bits)), 2).to_bytes(len(self._bits) // 8, "big")


def _sequence() -> bytes:
    """SPS: baseline, level 1, 4-bit frame numbers, output in decoding order, one reference frame."""
    bits = _Bits().put(0x67, 8).put(66, 8).put(0b11000000, 8).put(10, 8).exp(0, 0, 2, 1).put(0, 1)
    return bits.exp(SIDE // 16 - 1, SIDE // 16 - 1).put(0b1100, 4).end()


def _picture() -> bytes:
    """PPS: CAVLC, one slice group, no weights, deblocking may be controlled."""
    bits = _Bits().put(0x68, 8).exp(0, 0).put(0, 2).exp(0, 0, 0).put(0, 3)
    return bits.exp(0, 0, 0).put(0b100, 3).end()


def _key_frame() -> bytes:
    """Return an IDR slice of grey I_PCM macroblocks, none of whose bytes needs escaping."""
    bits = _Bits().put(0x65, 8).exp(0, 7, 0).put(0, 4).exp(0).put(0, 2).exp(0).exp(1)
    for _ in range(_BLOCKS):
        bits.exp(25).align()
        for _ in range(384):
            bits.put(_GREY, 8)
    return bits.end()


def _same_again(number: int) -> bytes:
    """Return a P slice that skips every macroblock."""
    bits = _Bits().put(0x41, 8).exp(0, 5, 0).put(number % 16, 4).put(0, 1).put(0, 1).put(0, 1).exp(0).exp(1)
    return bits.exp(_BLOCKS).end()


def film(frames: int, fps: int) -> bytes:
    """Bytes of an MP4 of so many frames."""
    units = [_key_frame(), *(_same_again(number) for number in range(1, frames))]
    samples = [struct.pack(">I", len(unit)) + unit for unit in units]
    kind = _box(b"ftyp", b"isom" + struct.pack(">I", 0x200) + b"isomiso2avc1mp41")
    start = len(kind) + len(_movie(samples, fps, 0)) + 8
    return kind + _movie(samples, fps, start) + _box(b"mdat", b"".join(samples))


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _movie(samples: list[bytes], fps: int, start: int) -> bytes:
    count = len(samples)
    header = _full(
        b"mvhd",
        struct.pack(">IIIIIHHII", 0, 0, fps, count, 0x10000, 0x100, 0, 0, 0) + _UNITY + bytes(24),
        struct.pack(">I", 2),
    )
    track = _full(
        b"tkhd",
        struct.pack(">IIIIIIIHHHH", 0, 0, 1, 0, count, 0, 0, 0, 0, 0, 0) + _UNITY,
        struct.pack(">II", SIDE << 16, SIDE << 16),
        flags=3,
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, fps, count, 0x55C4, 0)),
        _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide") + b"simulated\0"),
        _box(
            b"minf",
            _full(b"vmhd", bytes(8), flags=1),
            _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))),
            _table(samples, start),
        ),
    )
    return _box(b"moov", header, _box(b"trak", track, media))


def _table(samples: list[bytes], start: int) -> bytes:
    """Where the samples are, how long and how large."""
    sequence, picture = _sequence(), _picture()
    setup = bytes([1, *sequence[1:4], 0xFF, 0xE1]) + struct.pack(">H", len(sequence)) + sequence
    setup += b"\1" + struct.pack(">H", len(picture)) + picture
    entry = _box(
        b"avc1",
        struct.pack(">6xH16xHHIIIH32sHh", 1, SIDE, SIDE, 72 << 16, 72 << 16, 0, 1, b"\0", 24, -1),
        _box(b"avcC", setup),
    )
    sizes = struct.pack(f">{len(samples)}I", *map(len, samples))
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, len(samples), 1)),
        _full(b"stss", struct.pack(">II", 1, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, len(samples), 1)),
        _full(b"stsz", struct.pack(">II", 0, len(samples)) + sizes),
        _full(b"stco", struct.pack(">II", 1, start)),
    )
