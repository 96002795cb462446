"""Tracks: what is known of each request, from its arrival to its final share; groups of them."""

import bisect
from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from proxy.core.events import Arrive, End


@dataclass(slots=True)
class Charge:
    """Joules of one request on one device: its share, what was measured while it was alone, and in all."""

    joules: float = 0.0
    alone: float = 0.0
    life: float = 0.0

    def add(self, joules: float, alone: float, life: float) -> None:
        """Add one block's."""
        self.joules += joules
        self.alone += alone
        self.life += life


@dataclass(slots=True)
class Track:
    """One request. Stamps in ns; charges by device; parts in joules (static, decode, context, prefill)."""

    arrive: Arrive
    slot: int = 0
    end: End | None = None
    first_ns: int | None = None
    outputs: int = 0  # tokens seen in chunks
    chunks: int = 0
    closed_tokens: int = 0  # of them, in closed windows
    charges: dict[str, Charge] = field(default_factory=dict)
    parts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))

    @property
    def start_ns(self) -> int:
        """When the request was sent to its backend."""
        return self.arrive.t_ns

    @property
    def end_ns(self) -> int | None:
        """When the answer ended; None while it runs."""
        return self.end.t_ns if self.end else None


class Outputs:
    """Output events not closed yet, in columns: t_ns, slot of the request, tokens (-1: not known)."""

    __slots__ = ("_slot", "_t", "_tokens")

    def __init__(self) -> None:
        self._t = array("q")
        self._slot = array("q")
        self._tokens = array("q")

    def append(self, t_ns: int, slot: int, tokens: int) -> None:
        """Take one event; stamps in order."""
        self._t.append(t_ns)
        self._slot.append(slot)
        self._tokens.append(tokens)

    def columns(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Copies of the columns, (E,) each."""
        return np.array(self._t), np.array(self._slot), np.array(self._tokens)

    def forget(self, t_ns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Drop events at or before ``t_ns``; returns the slots and tokens dropped."""
        count = bisect.bisect_right(self._t, t_ns)
        slot, tokens = np.array(self._slot[:count]), np.array(self._tokens[:count])
        del self._t[:count]
        del self._slot[:count]
        del self._tokens[:count]
        return slot.astype(np.int64), tokens.astype(np.int64)


class Group:
    """The requests on one backend: tracks, and their outputs not closed yet."""

    __slots__ = ("_free", "devices", "key", "outputs", "tracks")

    def __init__(self, key: tuple[str, ...], devices: tuple[str, ...]) -> None:
        self.key = key
        self.devices = devices
        self.outputs = Outputs()
        self.tracks: dict[int, Track] = {}
        self._free: list[int] = []

    def open(self, arrive: Arrive) -> Track:
        """Start a request. Slots are small integers, used again after the final share."""
        slot = self._free.pop() if self._free else len(self.tracks)
        track = self.tracks[slot] = Track(arrive, slot)
        return track

    def output(self, track: Track, t_ns: int, tokens: int | None) -> None:
        """Take one chunk of a request; a chunk of no tokens says nothing of the engine."""
        if tokens == 0:
            return
        if track.first_ns is None:
            track.first_ns = t_ns
        track.chunks += 1
        track.outputs += tokens or 0
        self.outputs.append(t_ns, track.slot, -1 if tokens is None else tokens)

    def forget(self, t_ns: int) -> None:
        """Drop outputs at or before ``t_ns``: their windows are closed."""
        slots, tokens = self.outputs.forget(t_ns)
        if not len(slots):
            return
        closed = np.bincount(slots, np.abs(tokens))
        for slot in np.flatnonzero(closed).tolist():
            track = self.tracks.get(slot)
            if track is not None:
                track.closed_tokens += int(closed[slot])

    def close(self, track: Track) -> None:
        """Forget a request whose share is final."""
        del self.tracks[track.slot]
        self._free.append(track.slot)
