"""The proxy's own count of requests in flight at each backend, to compare with the engine's metrics. Pure."""

from proxy.core.request_events import RequestEnd, RequestStart
from proxy.evidence.engine_metrics import OurState


class OwnView:
    """Counts requests by backend: ``add`` each event, ``look`` once for each scrape of the engine."""

    def __init__(self) -> None:
        self._backends: dict[str, str] = {}  # request -> backend, while it runs
        self._in_flight: dict[str, int] = {}
        self._most: dict[str, int] = {}  # largest number in flight since the last look

    def add(self, event: object) -> None:
        """Count the start or end of a request; other events are ignored."""
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
        """Return the largest number of requests in flight since the last call for this backend."""
        now = self._in_flight.get(backend, 0)
        most = max(self._most.get(backend, 0), now)
        self._most[backend] = now
        return OurState(most)
