"""The proxy's own view of each backend, from the events that pass: what its engine is compared with. Pure."""

from proxy.core.request_events import RequestEnd, RequestStart
from proxy.evidence.engine_metrics import OurState


class OwnView:
    """Take events as they come; ``look`` gives the state of a backend since the last look."""

    def __init__(self) -> None:
        self._backends: dict[str, str] = {}  # of running requests
        self._in_flight: dict[str, int] = {}
        self._most: dict[str, int] = {}

    def take(self, event: object) -> None:
        """One event of a relay; others are ignored."""
        match event:
            case RequestStart():
                backend = event.arrive.backend or ""
                self._backends[event.arrive.request] = backend
                now = self._in_flight[backend] = self._in_flight.get(backend, 0) + 1
                self._most[backend] = max(self._most.get(backend, 0), now)
            case RequestEnd():
                found = self._backends.pop(event.end.request, None)
                if found is not None:
                    self._in_flight[found] -= 1
            case _:
                pass

    def look(self, backend: str) -> OurState:
        """The most in flight since the last look."""
        now = self._in_flight.get(backend, 0)
        most = max(self._most.get(backend, 0), now)
        self._most[backend] = now
        return OurState(most)
