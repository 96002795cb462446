"""What the relays say of the backends and of themselves, put side by side. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from proxy.config import Backend
from proxy.ipc import BackendState, RelayState
from proxy.units import seconds_from_ns

_BEST_FIRST: Final = ("up", "ejected", "down")


class Seen(msgspec.Struct, frozen=True):
    """One backend as one relay worker sees it."""

    worker: int
    state: str
    outstanding: int
    for_seconds: float
    reason: str | None


class BackendView(msgspec.Struct, frozen=True):
    """One backend: its settings, what it serves, how it is. ``state`` null: no relay has told yet.

    ``state`` is the best that a worker sees (each checks for itself); ``models`` empty: any.
    """

    name: str
    url: str
    devices: tuple[str, ...]
    models: tuple[str, ...]
    state: str | None
    outstanding: int
    workers: tuple[Seen, ...]


class RelayView(msgspec.Struct, frozen=True):
    """What one relay worker holds."""

    worker: int
    pid: int
    clients: int
    requests: int
    tasks: int
    connections: int


class Backends:
    """``told`` by each relay's connection number; ``gone`` when it left."""

    def __init__(self) -> None:
        self._told: dict[int, dict[str, BackendState]] = {}
        self._relays: dict[int, RelayState] = {}

    def told(self, worker: int, state: BackendState) -> None:
        """A relay said how a backend is."""
        self._told.setdefault(worker, {})[state.name] = state

    def relay(self, worker: int, state: RelayState) -> None:
        """A relay said what it holds."""
        self._relays[worker] = state

    def gone(self, worker: int) -> None:
        """A relay left."""
        self._told.pop(worker, None)
        self._relays.pop(worker, None)

    def relays(self) -> list[RelayView]:
        """All relays that are there."""
        return [RelayView(worker, *msgspec.structs.astuple(state)) for worker, state in self._relays.items()]

    def view(
        self, backends: Sequence[Backend], devices: Mapping[str, tuple[str, ...]], now_ns: int
    ) -> list[BackendView]:
        """All configured backends."""
        return [self._one(backend, devices.get(backend.name, ()), now_ns) for backend in backends]

    def _one(self, backend: Backend, devices: tuple[str, ...], now_ns: int) -> BackendView:
        told = [(w, states[backend.name]) for w, states in self._told.items() if backend.name in states]
        seen = tuple(
            Seen(w, s.state, s.outstanding, round(seconds_from_ns(now_ns - s.since_ns), 1), s.reason)
            for w, s in told
        )
        learnt = sorted({model for _, state in told for model in state.models})
        states = [one.state for one in seen]
        return BackendView(
            backend.name,
            backend.url,
            devices,
            backend.models or tuple(learnt),
            min(states, key=_BEST_FIRST.index, default=None),
            sum(one.outstanding for one in seen),
            seen,
        )
