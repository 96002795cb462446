# Compiled by mypyc: see setup.py.
"""Sending a request again after its connection failed: when that is safe, and what is kept for it.

A server may close an idle connection at the moment a request is sent over it, so that a connection which was
kept can fail at no fault of anybody. The rule, for requests without a byte of a response whose body is still
held (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1):

- Any request is sent again if the peer's kernel acknowledged none of its bytes: it cannot have been
  processed.
- Idempotent methods are sent again.
- A POST that may have been processed is sent again only after a kept connection failed, and only to an
  endpoint that computes a response and leaves nothing behind (``Endpoint.repeatable``): the worst case is
  energy spent twice. Not after a new connection failed: the request itself may be what the backend died of.

All other failures are reported to the client, who can decide whether to repeat.
"""

import fcntl
import struct
import termios
from typing import Final

from proxy.api.endpoints import Endpoint

MAX_READ_BYTES: Final = 64 * 1024 * 1024  # of a body that is read; a larger one is read up to here
_MAX_REPLAY_BYTES: Final = 256 * 1024  # of a body that streams through and can be sent again

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_INT: Final = struct.Struct("i")


def may_repeat(method: bytes, endpoint: Endpoint | None, *, kept: bool, unprocessed: bool) -> bool:
    """Return whether a request may be sent again that got no byte of a response.

    ``kept``: its connection had carried another request. ``unprocessed``: see :func:`none_acknowledged`.
    """
    if unprocessed or method in _IDEMPOTENT:
        return True
    return kept and endpoint is not None and endpoint.repeatable


def none_acknowledged(descriptor: int, sent_bytes: int) -> bool:
    """Return whether none of the last ``sent_bytes`` written to a TCP socket reached its peer.

    Call it when the peer has closed the connection, before the descriptor is closed. The kernel counts what
    the peer did not acknowledge (``TIOCOUTQ``, tcp(7) ``SIOCOUTQ``). A FIN acknowledges all that arrived
    before it, and what arrives after ``close`` is never read. This does not hold for a reset: bytes may have
    been read whose acknowledgement was delayed. Nor for TLS, whose records are longer than what was written.
    False where the kernel does not report it.
    """
    try:
        response = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(_INT.size))
    except OSError:
        return False
    unacknowledged: int = _INT.unpack(response)[0]
    return 0 < sent_bytes <= unacknowledged


class BodyBuffer:
    """The body of one request: what is not sent yet, and what may have to be sent again.

    ``collected``: it is held to be read, at most ``limit`` bytes of it. ``reads``: completely, as it was
    not larger so far. ``ended``: all of it came.
    ``length``: in bytes; None where it is not known or there is none. Pieces hold the framing of chunks until
    the body is read.
    """

    __slots__ = ("_limit", "_pieces", "_size", "collected", "ended", "length", "reads")

    def __init__(
        self, length: int | None, *, present: bool, reads: bool, limit: int = MAX_READ_BYTES
    ) -> None:
        self.ended = not present
        self.length = length
        self.collected = self.reads = reads
        self._pieces: list[bytes] | None = []  # None: a part of it is gone
        self._size = 0
        self._limit = limit

    @property
    def repeatable(self) -> bool:
        """Whether all that came so far is held."""
        return self._pieces is not None

    def add(self, raw: bytes) -> None:
        """Store bytes that cannot be sent yet."""
        if self._pieces is not None:
            self._pieces.append(raw)
            self._size += len(raw)
            self.reads = self.reads and self._size <= self._limit

    def passed(self, raw: bytes) -> None:
        """Store bytes that were sent immediately, as long as they are few."""
        self.add(raw)
        if self._size > _MAX_REPLAY_BYTES:
            self._pieces = None

    def joined(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces or ())

    def replace(self, payload: bytes) -> None:
        """Set what was read of it, without framing, as the body to send."""
        self._pieces = [payload]
        self.length = len(payload)

    def pieces(self) -> list[bytes]:
        """Return what is to be sent first."""
        return self._pieces or []

    def forget(self) -> None:
        """Drop it: it will not be sent again."""
        self._pieces = None
