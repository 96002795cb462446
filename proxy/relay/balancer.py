"""Which backend takes a request: fewest outstanding, by model, none that lately failed. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.config import Backend
from proxy.units import NS_PER_SECOND

_BACKOFF_SECONDS: Final = (1, 2, 5, 10, 30)
_FAILURES: Final = 3  # in a row, until a backend is left out


@dataclass(slots=True, eq=False)
class Slot:
    """One backend's state in this worker."""

    backend: Backend
    outstanding: int = 0
    failures: int = 0
    out_until_ns: int = 0


class Balancer:
    """Chooses; is told how each attempt went."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.slots = [Slot(backend) for backend in backends]

    def choose(self, model: str | None, now_ns: int) -> Slot | None:
        """The slot with the fewest outstanding requests; None where none may take one.

        A backend whose configuration names models gets only those; the only backend gets everything.
        """
        slots = self.slots
        if len(slots) == 1:
            return slots[0]
        able = [
            slot
            for slot in slots
            if slot.out_until_ns <= now_ns
            and (model is None or not slot.backend.models or model in slot.backend.models)
        ]
        return min(able, key=lambda slot: slot.outstanding, default=None)

    def failed(self, slot: Slot, now_ns: int) -> None:
        """A connection was refused or died; too many in a row leave the backend out for a while."""
        slot.failures += 1
        over = slot.failures - _FAILURES
        if over >= 0:
            seconds = _BACKOFF_SECONDS[min(over, len(_BACKOFF_SECONDS) - 1)]
            slot.out_until_ns = now_ns + seconds * NS_PER_SECOND

    def answered(self, slot: Slot) -> None:
        """An answer began."""
        slot.failures = 0
