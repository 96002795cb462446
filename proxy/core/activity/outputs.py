"""Outputs: what was seen of answers while they were streamed, in columns.

Columns instead of objects: at a million chunks a second everything done per chunk is done by numpy.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_FEW: Final = 64
NEVER: Final = np.iinfo(np.int64).max


class Outputs:
    """Output events that are still needed, by time: t_ns, slot of the request, tokens (-1: not known)."""

    __slots__ = ("slot", "t_ns", "tokens")

    def __init__(self) -> None:
        self.t_ns = np.empty(0, np.int64)
        self.slot = np.empty(0, np.int64)
        self.tokens = np.empty(0, np.int64)

    def copy(self) -> "Outputs":
        """Return the same outputs."""
        other = Outputs()
        other.replace_by(self)
        return other

    def replace_by(self, other: "Outputs") -> None:
        """Take the columns of another; they are replaced, never changed in place."""
        self.t_ns, self.slot, self.tokens = other.t_ns, other.slot, other.tokens

    def extend(self, t_ns: Ints, slot: Ints, tokens: Ints) -> None:
        """Take events that are later than all before, (E,) each."""
        self.t_ns = np.concatenate([self.t_ns, t_ns])
        self.slot = np.concatenate([self.slot, slot])
        self.tokens = np.concatenate([self.tokens, tokens])

    def insert(self, t_ns: Ints, slot: Ints, tokens: Ints) -> None:
        """Take events of any time, (E,) each."""
        self.extend(t_ns, slot, tokens)
        order = np.argsort(self.t_ns, kind="stable")
        self.t_ns, self.slot, self.tokens = self.t_ns[order], self.slot[order], self.tokens[order]

    def until(self, t_ns: int) -> tuple[Ints, Ints, Ints]:
        """The columns up to and with ``t_ns``."""
        count = int(np.searchsorted(self.t_ns, t_ns, side="right"))
        return self.t_ns[:count], self.slot[:count], self.tokens[:count]

    def forget(self, t_ns: int) -> tuple[Ints, Ints]:
        """Drop events at or before ``t_ns``; returns the slots and tokens dropped."""
        _, slot, tokens = self.until(t_ns)
        count = len(slot)
        self.t_ns, self.slot = self.t_ns[count:].copy(), self.slot[count:].copy()
        self.tokens = self.tokens[count:].copy()
        return slot, tokens


class Streams:
    """What is known of the answer of each open request, in columns by slot; slots are used again.

    ``start_ns``; ``end_ns`` (``NEVER`` while it runs); ``first_ns`` of the first output (-1: none yet);
    ``chunks`` and ``tokens`` seen; ``forgotten``: tokens of outputs that are dropped.
    """

    __slots__ = ("_free", "chunks", "end_ns", "first_ns", "forgotten", "start_ns", "tokens")

    def __init__(self) -> None:
        self._free = list(range(_FEW))[::-1]
        for name in self._columns():
            setattr(self, name, np.zeros(_FEW, np.int64))

    start_ns: Ints
    end_ns: Ints
    first_ns: Ints
    chunks: Ints
    tokens: Ints
    forgotten: Ints

    @staticmethod
    def _columns() -> tuple[str, ...]:
        return ("start_ns", "end_ns", "first_ns", "chunks", "tokens", "forgotten")

    def columns(self) -> dict[str, Ints]:
        """Return copies of the columns, for ``restore``."""
        return {name: getattr(self, name).copy() for name in self._columns()}

    def restore(self, columns: dict[str, Ints]) -> None:
        """Set all columns; no slot may have been opened or closed since they were copied."""
        for name, values in columns.items():
            setattr(self, name, values)

    def open(self, start_ns: int) -> int:
        """A slot for a request that arrived at ``start_ns``."""
        if not self._free:
            size = len(self.start_ns)
            for name in self._columns():
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(size, np.int64)]))
            self._free = list(range(size, 2 * size))[::-1]
        slot = self._free.pop()
        for name in self._columns():
            getattr(self, name)[slot] = 0
        self.start_ns[slot], self.end_ns[slot], self.first_ns[slot] = start_ns, NEVER, -1
        return slot

    def close(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def see(self, t_ns: Ints, slot: Ints, tokens: Ints) -> None:
        """Count outputs, in order of time, (E,) each."""
        size = len(self.start_ns)
        self.chunks += np.bincount(slot, minlength=size)
        self.tokens += np.bincount(slot, np.maximum(tokens, 0), minlength=size).astype(np.int64)
        fresh = np.flatnonzero(self.first_ns[slot] < 0)
        # Of equal indices the last assignment stays: backwards, that is the earliest.
        self.first_ns[slot[fresh][::-1]] = t_ns[fresh][::-1]
