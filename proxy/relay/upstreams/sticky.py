"""Stickiness: which requests belong together, and which backend they prefer. No I/O.

The preference is consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018,
arXiv:1608.01350): a key's backend is the first on a ring of hashes behind it; one that already has more than
``factor`` times its fair share of the outstanding requests is passed over, so a hot key spreads as far as it
must, and a backend that comes or goes moves few keys.
"""

import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, Generic, TypeVar

import msgspec

from proxy.config import RelayConfig
from proxy.relay.http.heads import RequestHead

T = TypeVar("T")
_POINTS: Final = 128  # a backend's on the ring: loads of equal keys differ by about 1/sqrt of it


class _Session(msgspec.Struct):
    """Members that identify a conversation, where no header does."""

    prompt_cache_key: msgspec.Raw = msgspec.Raw()
    user: msgspec.Raw = msgspec.Raw()


class _Prefix(msgspec.Struct):
    """Members whose prefixes engines cache."""

    model: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_SESSION: Final = msgspec.json.Decoder(_Session)
_PREFIX: Final = msgspec.json.Decoder(_Prefix)
_ABSENT: Final = (b"", b"null", b'""')


def hash_of(data: bytes) -> int:
    """64 bits, the same in every worker (Python's own hash is salted by process)."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class AffinityKeys:
    """Derive the affinity key of a request, as configured by ``sticky``."""

    def __init__(self, config: RelayConfig) -> None:
        self._mode = config.sticky
        self._header = config.session_header.lower().encode("latin-1")
        self._length = config.sticky_prefix_bytes

    def key(self, head: RequestHead, body: bytes | None) -> int | None:
        """Return the key; None without one. ``body``: a complete JSON body."""
        if self._mode == "session":
            text = head.values.get(self._header) or _session(body)
        elif self._mode == "prefix":
            text = _prefix(body, self._length)
        else:
            return None
        return hash_of(text) if text else None


def _session(body: bytes | None) -> bytes:
    if body is None:
        return b""
    try:
        found = _SESSION.decode(body)
    except msgspec.DecodeError:
        return b""
    texts = (bytes(raw) for raw in (found.prompt_cache_key, found.user))
    return next((text for text in texts if text not in _ABSENT), b"")


def _prefix(body: bytes | None, length: int) -> bytes:
    if body is None:
        return b""
    try:
        found = _PREFIX.decode(body)
    except msgspec.DecodeError:
        return b""
    texts = (bytes(memoryview(raw)[:length]) for raw in (found.messages, found.prompt, found.input))
    text = next((text for text in texts if text not in _ABSENT), b"")
    return bytes(found.model) + text if text else b""


class Ring(Generic[T]):
    """Members by hash, around a circle."""

    def __init__(self, names: Sequence[tuple[str, T]]) -> None:
        points = sorted(
            (hash_of(f"{name}#{number}".encode()), place)
            for place, (name, _) in enumerate(names)
            for number in range(_POINTS)
        )
        self._hashes = [point for point, _ in points]
        self._members = [names[place][1] for _, place in points]

    def walk(self, key: int) -> Iterator[T]:
        """Members from the key's place on, once around; each comes many times."""
        members = self._members
        start = bisect.bisect_left(self._hashes, key)
        for place in range(start - len(members), start):
            yield members[place]
