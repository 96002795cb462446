# Compiled by mypyc: see setup.py.
"""Choose the backend of a request: fewest outstanding, by model, health and affinity. No I/O.

One pass over the backends for each request; a hash only where the request has a key (``sticky.py``).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from proxy.config import Backend, RelayConfig
from proxy.relay.upstreams.health import Health
from proxy.relay.upstreams.sticky import Ring
from proxy.units import NS_PER_SECOND

_UNAVAILABLE: Final = frozenset((500, 502, 503, 504))


@dataclass(slots=True, eq=False)
class Slot:
    """One backend's state in this worker. ``models``: those it is known to serve; empty: any.

    Maps each to its entry in a list of models, a JSON object: as the backend reported it, where known.
    """

    backend: Backend
    health: Health
    outstanding: int = 0
    turn: int = 0  # of its last request, to go round among equals
    models: Mapping[str, bytes] = field(default_factory=dict)
    no_usage_until_ns: int = 0  # it rejected stream_options

    def __post_init__(self) -> None:
        self.configure()

    def configure(self) -> None:
        """Set the models to those of the configuration, which may name none."""
        owner = self.backend.name or "jouleproxy"
        self.models = {
            name: msgspec.json.encode({"id": name, "object": "model", "created": 0, "owned_by": owner})
            for name in self.backend.models
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no backend can serve a request: the error for the client."""

    status: int
    message: str
    code: str
    retry_seconds: int | None = None


class Balancer:
    """Call ``acquire`` to choose a backend, ``release`` at the end; the ``record_`` methods report outcomes.

    ``listing``: the merged body of ``GET /v1/models``; None where that of any backend is complete.
    """

    def __init__(self, backends: Sequence[Backend], config: RelayConfig, now_ns: int) -> None:
        self._config = config
        self.slots = [Slot(backend, Health(config, now_ns)) for backend in backends]
        self._turns = 0
        self._settle()

    def _settle(self) -> None:
        self._listed = frozenset[str]().union(*(slot.models for slot in self.slots))
        self.listing = _listing([slot.models for slot in self.slots if slot.models])
        self._ring = Ring([(slot.backend.name or slot.backend.url, slot) for slot in self.slots])

    def reconfigure(self, backends: Sequence[Backend], config: RelayConfig, now_ns: int) -> list[Slot]:
        """Apply new settings and return the removed slots; a backend at the same address keeps its state."""
        self._config = config
        before = {_address(slot.backend): slot for slot in self.slots}
        slots = []
        for backend in backends:
            slot = before.pop(_address(backend), None)
            if slot is None:
                slot = Slot(backend, Health(config, now_ns, slowly=True))
            elif slot.backend.models != backend.models:
                slot.backend = backend
                slot.configure()
            slot.backend = backend
            slot.no_usage_until_ns = 0
            slot.health.reconfigure(config)
            slots.append(slot)
        self.slots = slots
        self._settle()
        return list(before.values())

    def set_models(self, slot: Slot, models: Mapping[str, bytes]) -> None:
        """Set the models that a backend reported; ignored if its configuration names models."""
        if not slot.backend.models and slot.models != models:
            slot.models = models
            self._settle()

    def acquire(
        self, model: str | None, now_ns: int, key: int | None = None, tried: Collection[Slot] = ()
    ) -> Slot | None:
        """Return the slot for a request and count it as outstanding there; None if none may serve it.

        A model that no backend lists may go to any whose list was reported, which may be incomplete. The
        only backend gets everything. ``tried`` are excluded.
        """
        if len(self.slots) == 1:
            slot = None if tried else self.slots[0]
        elif key is None:
            slot = self._fewest(model, now_ns, tried)
        else:
            slot = self._nearest(model, now_ns, tried, key)
        if slot is not None:
            self.assign(slot, now_ns)
        return slot

    def assign(self, slot: Slot, now_ns: int) -> None:
        """Count a request as outstanding at this slot."""
        self._turns += 1
        slot.turn = self._turns
        slot.outstanding += 1
        slot.health.record_request(now_ns)

    def _fewest(self, model: str | None, now_ns: int, tried: Collection[Slot]) -> Slot | None:
        best, least = None, 0.0
        listed = model in self._listed
        for slot in self.slots:  # of every request: no calls for one that is up and has the model
            health = slot.health
            if health.state != "up" and not health.accepts(now_ns):
                continue
            if slot.models and model not in slot.models and not _serves(slot, model, listed=listed):
                continue
            if tried and slot in tried:
                continue
            load = slot.outstanding + 1.0
            if health.warm_ns:
                load /= health.weight(now_ns)
            if best is None or load < least or (load == least and slot.turn < best.turn):
                best, least = slot, load
        return best

    def _nearest(self, model: str | None, now_ns: int, tried: Collection[Slot], key: int) -> Slot | None:
        """Return the first on the ring with less than ``sticky_load_factor`` times its fair share."""
        listed = model in self._listed
        weights = {
            slot: slot.health.weight(now_ns)
            for slot in self.slots
            if slot.health.accepts(now_ns) and _serves(slot, model, listed=listed) and slot not in tried
        }
        if not weights:
            return None
        total = 1 + sum(slot.outstanding for slot in weights)
        share = self._config.sticky_load_factor * total / sum(weights.values())
        for slot in self._ring.walk(key):
            if slot in weights and slot.outstanding < math.ceil(share * weights[slot]):
                return slot
        raise AssertionError("not all can have more than their share")

    @staticmethod
    def release(slot: Slot) -> None:
        """Count a request of this slot as ended."""
        slot.outstanding -= 1

    def record_status(self, slot: Slot, status: int, now_ns: int) -> bool:
        """Record the status of a response; return whether its backend is ejected because of it.

        A server that is broken answers fastest, has the fewest outstanding, and would get all requests. Where
        no other could take them it stays: an error may be the request's fault, too.
        """
        if status in _UNAVAILABLE and self._replaceable(slot, now_ns):
            return slot.health.record_failure(now_ns, f"it answers with {status}")
        slot.health.record_success(now_ns)
        return False

    def _replaceable(self, slot: Slot, now_ns: int) -> bool:
        """Return whether another backend could serve its requests, by the models that are known."""
        return any(
            other is not slot
            and other.health.accepts(now_ns)
            and not (slot.models and other.models and slot.models.keys().isdisjoint(other.models))
            for other in self.slots
        )

    @staticmethod
    def record_failure(slot: Slot, now_ns: int, reason: str) -> bool:
        """Record a connection that failed without a response; return whether the backend is ejected."""
        return slot.health.record_failure(now_ns, reason)

    def refusal(self, model: str | None, now_ns: int) -> Refusal:
        """Return the error for a request that no backend can serve now, and when to retry."""
        listed = model in self._listed
        able = [slot for slot in self.slots if _serves(slot, model, listed=listed)]
        if not able:
            return Refusal(404, f"no backend serves the model {model!r}", "model_not_found")
        wait_ns = min(slot.health.next_chance_ns(now_ns) for slot in able) - now_ns
        seconds = max(1, math.ceil(wait_ns / NS_PER_SECOND))
        return Refusal(503, "no backend can take the request now", "no_backend", seconds)


def _serves(slot: Slot, model: str | None, *, listed: bool) -> bool:
    if model is None or not slot.models or model in slot.models:
        return True
    return not listed and not slot.backend.models


def _listing(lists: Sequence[Mapping[str, bytes]]) -> bytes | None:
    together: dict[str, bytes] = {}
    for models in lists:
        together |= {name: entry for name, entry in models.items() if name not in together}
    if all(len(models) == len(together) for models in lists):
        return None
    return b'{"object":"list","data":[%b]}' % b",".join(together.values())


def _address(backend: Backend) -> tuple[str, str | None, bool]:
    return backend.url, backend.ca_file, backend.verify_tls
