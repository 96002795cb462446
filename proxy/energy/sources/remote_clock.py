"""Another host's clock in terms of this one's, from exchanges with it. Pure.

Clocks of two hosts are never compared by what they show. An exchange brackets a stamp of the far clock
between two of ours: the far stamp was taken somewhere in between, so the narrowest recent exchange tells the
offset to within half its duration. Old exchanges are forgotten, as clocks drift.
"""

from collections import deque
from typing import Final

_KEEP: Final = 32


class RemoteClock:
    """Feed exchanges, then turn far stamps into ours. All stamps in nanoseconds."""

    __slots__ = ("_exchanges",)

    def __init__(self) -> None:
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=_KEEP)  # (duration, offset)

    def exchange(self, before_ns: int, far_ns: int, after_ns: int) -> None:
        """The far clock showed ``far_ns`` at some time between our two stamps."""
        self._exchanges.append((after_ns - before_ns, (before_ns + after_ns) // 2 - far_ns))

    def here(self, far_ns: int) -> int:
        """Our stamp of a far one; raises ``ValueError`` before the first exchange."""
        return far_ns + min(self._exchanges)[1]

    @property
    def error_ns(self) -> int | None:
        """How far off ``here`` may be; None before the first exchange."""
        return min(self._exchanges)[0] // 2 if self._exchanges else None
