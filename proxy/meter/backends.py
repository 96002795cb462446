"""State of the backends and of the relay workers, merged from the workers' reports. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from proxy.config import Backend
from proxy.ipc import BackendState, RelayState
from proxy.units import seconds_from_ns

# Several workers may disagree, since each checks for itself: a backend that one of them can use is usable.
_BEST_FIRST: Final = ("up", "ejected", "down")


class WorkerView(msgspec.Struct, frozen=True):
    """One backend as one relay worker sees it; ``for_seconds`` is the age of the state."""

    worker: int
    state: str
    outstanding: int
    for_seconds: float
    reason: str | None


class BackendView(msgspec.Struct, frozen=True):
    """One backend in the response of ``GET /backends``.

    Attributes:
        models: Names of the models that it serves; empty: any.
        state: The best state that a worker reports; None: no worker has reported yet.
        outstanding: Requests in progress at all workers, metered or not.
    """

    name: str
    url: str
    devices: tuple[str, ...]
    models: tuple[str, ...]
    state: str | None
    outstanding: int
    workers: tuple[WorkerView, ...]


class RelayView(msgspec.Struct, frozen=True):
    """Number of connections, requests and tasks of one relay worker."""

    worker: int
    pid: int
    clients: int
    requests: int
    tasks: int
    connections: int


class Backends:
    """Last report of each relay worker, by the number of its connection."""

    def __init__(self) -> None:
        self._reports: dict[int, dict[str, BackendState]] = {}
        self._relays: dict[int, RelayState] = {}

    def update_backend(self, worker: int, state: BackendState) -> None:
        """Store the state of a backend as a worker reports it."""
        self._reports.setdefault(worker, {})[state.name] = state

    def update_relay(self, worker: int, state: RelayState) -> None:
        """Store a worker's report about itself."""
        self._relays[worker] = state

    def remove_relay(self, worker: int) -> None:
        """Discard the reports of a worker that has disconnected."""
        self._reports.pop(worker, None)
        self._relays.pop(worker, None)

    def relays(self) -> list[RelayView]:
        """Return one view for each connected worker."""
        return [RelayView(worker, *msgspec.structs.astuple(state)) for worker, state in self._relays.items()]

    def view(
        self, backends: Sequence[Backend], devices: Mapping[str, tuple[str, ...]], now_ns: int
    ) -> list[BackendView]:
        """Return one view for each configured backend.

        Args:
            backends: The configured backends.
            devices: Ids of the devices of each backend, by its name.
            now_ns: Present time of the monotonic clock.
        """
        return [self._one(backend, devices.get(backend.name, ()), now_ns) for backend in backends]

    def _one(self, backend: Backend, devices: tuple[str, ...], now_ns: int) -> BackendView:
        reported = [
            (w, states[backend.name]) for w, states in self._reports.items() if backend.name in states
        ]
        seen = tuple(
            WorkerView(w, s.state, s.outstanding, round(seconds_from_ns(now_ns - s.since_ns), 1), s.reason)
            for w, s in reported
        )
        learnt = sorted({model for _, state in reported for model in state.models})
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
