"""Values of labels and metric attributes, limited in number and length.

Clients choose the names of models and tenants, so each value with a series of its own uses one of a limited
number of slots; other values share ``other``. Two rules keep slots for models and tenants that are served:

- A rejected request uses no slot (a client that tries names, a typo in a loop).
- If all slots are in use, one whose value was not used for ``idle_ns`` is reassigned to the new value (a
  backend that accepts any name, models that were replaced).
"""

from collections.abc import Callable
from typing import Final

OTHER: Final = "other"
LABEL_LIMIT: Final = 200  # values of one label
MAX_LENGTH: Final = 200  # characters of a value; longer ones are cut
IDLE_NS: Final = 3600 * 1_000_000_000


class BoundedValues:
    """The values of one label.

    Args:
        limit: Number of slots.
        on_limited: Called for each use of ``other`` because no slot was free.
        on_reclaimed: Called with a value whose slot was reassigned; None: slots are never reassigned, for
            exporters that cannot drop a series.
        idle_ns: Time without use after which a slot may be reassigned.
    """

    def __init__(
        self,
        limit: int,
        on_limited: Callable[[], None] = lambda: None,
        on_reclaimed: Callable[[str], None] | None = None,
        idle_ns: int = IDLE_NS,
    ) -> None:
        self._limit = limit
        self._on_limited = on_limited
        self._on_reclaimed = on_reclaimed
        self._idle_ns = idle_ns
        self._used_ns: dict[str, int] = {}  # time of the last use, oldest first

    def value(self, text: str | None, t_ns: int, *, claim: bool = True) -> str:
        """Return the value to show for ``text``: itself, truncated, or ``other``.

        Args:
            text: The value; None counts as empty.
            t_ns: Time of the request, on any clock that is the same for all calls.
            claim: False: use no new slot.
        """
        value = (text or "")[:MAX_LENGTH]
        if value in self._used_ns:
            del self._used_ns[value]  # to the end of the order
        elif not claim:
            return OTHER
        elif len(self._used_ns) >= self._limit and not self._reclaimed(t_ns):
            self._on_limited()
            return OTHER
        self._used_ns[value] = t_ns
        return value

    def _reclaimed(self, t_ns: int) -> bool:
        oldest = next(iter(self._used_ns), None)
        if oldest is None or self._on_reclaimed is None or t_ns - self._used_ns[oldest] < self._idle_ns:
            return False
        del self._used_ns[oldest]
        self._on_reclaimed(oldest)
        return True
