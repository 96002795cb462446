"""Convert times of another host's clock to this host's, from exchanges with it. Pure.

The absolute times of two hosts are never compared, because their clocks may be set differently. An exchange
brackets a stamp of the remote clock between two local stamps: the remote stamp was taken somewhere in
between, so the shortest recent exchange gives the offset to within half its duration (as in Cristian's
algorithm, 1989). Only the last ``_KEEP`` exchanges count, because clocks drift.
"""

from collections import deque
from typing import Final

_KEEP: Final = 32


class RemoteClock:
    """Offset of a remote clock; all stamps in nanoseconds."""

    __slots__ = ("_exchanges",)

    def __init__(self) -> None:
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=_KEEP)  # (duration, offset)

    def add_exchange(self, before_ns: int, remote_ns: int, after_ns: int) -> None:
        """Add an exchange: the remote clock was ``remote_ns`` at some time between two local stamps."""
        self._exchanges.append((after_ns - before_ns, (before_ns + after_ns) // 2 - remote_ns))

    def to_local(self, remote_ns: int) -> int:
        """Convert a remote stamp to a local one; raises ``ValueError`` before the first exchange."""
        return remote_ns + min(self._exchanges)[1]

    @property
    def error_ns(self) -> int | None:
        """Largest error of ``to_local``, nanoseconds; None before the first exchange."""
        return min(self._exchanges)[0] // 2 if self._exchanges else None
