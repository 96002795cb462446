# Compiled by mypyc: see setup.py.
"""Find how much of a prompt an earlier prompt began with, without keeping any text.

Engines cache the KV of prompts that begin alike and often do not report it; the attribution estimates the
cached part from this. A prompt is cut at fixed offsets, close together at its beginning and farther apart
later, and at each cut a keyed hash of all that precedes it is remembered. The key is random and never leaves
the process.

Each relay worker has a table of its own: with several workers, a prefix that another worker forwarded is not
found, so the result is what was certainly seen before, not always all of it.
"""

import os
from hashlib import blake2b
from typing import Final

_LARGEST: Final = 1 << 20  # bytes of a prompt that are hashed; beyond it, no prefix is found
_HASHES: Final = 65_536  # remembered, about 8 MB; the oldest are dropped first


def _cuts() -> tuple[int, ...]:
    """Return the offsets at which prompts are cut: 512 bytes apart, later a sixteenth of the offset."""
    cuts, step = [512], 512
    while cuts[-1] < _LARGEST:
        if cuts[-1] >= 32 * step:
            step *= 2
        cuts.append(cuts[-1] + step)
    return tuple(cuts)


_CUTS: Final = _cuts()


class PrefixTable:
    """Hashes of the beginnings of the prompts seen last, of all backends and models."""

    def __init__(self, hashes: int = _HASHES) -> None:
        """``hashes``: how many are kept."""
        self._limit = hashes
        self._key = os.urandom(32)
        self._seen: dict[bytes, None] = {}  # by the time they were last seen

    def __len__(self) -> int:
        """Return the number of hashes kept."""
        return len(self._seen)

    def longest(self, group: str, prompt: bytes) -> int:
        """Return how many bytes of ``prompt`` an earlier one of ``group`` began with, and remember it.

        The result is a cut, so up to a sixteenth lower than the common beginning, or 512 bytes.
        """
        size, seen = len(prompt), self._seen
        if size < _CUTS[0]:
            return 0
        hasher = blake2b(group.encode(), digest_size=8, key=self._key)
        view, begin, found, new = memoryview(prompt), 0, 0, False
        for cut in _CUTS:
            if cut > size:
                break
            hasher.update(view[begin:cut])
            begin = cut
            digest = hasher.digest()
            if digest in seen:
                del seen[digest]  # inserted again as the newest
                if not new:
                    found = cut
            else:
                new = True
            seen[digest] = None
        while len(seen) > self._limit:
            del seen[next(iter(seen))]
        return found
