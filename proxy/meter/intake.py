"""Intake: what relays and the sampler say, put in order of time.

Events of several processes and of the sampler's thread come a little late and interleaved. They are held
for ``reorder_ns`` and handed on sorted by stamp; the core sees one later than that at the stamp of the last
one handed on, and it is counted: nothing is lost. A meter that was started again first waits for what the
relays kept meanwhile, so that requests older than its first sample are seen as such.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from proxy.core.channel import Chunk, Closed, Dropped, Leaving, Opened, ToMeter
from proxy.core.events import Arrive, End, Event, Output, Outside, Sample
from proxy.units import NS_PER_SECOND

Held = Sample | Opened | Output | Closed | Outside
RELAY_LOST: Final = "relay_lost"
MAX_REORDER_NS: Final = 60 * NS_PER_SECOND
START_NS: Final = 3 * NS_PER_SECOND // 2  # at start: a relay tries to connect again once a second


def stamp_of(held: Held) -> int:
    """When it happened, on the host's monotonic clock."""
    match held:
        case Opened():
            return held.arrive.t_ns
        case Closed():
            return held.end.t_ns
        case _:
            return held.t_ns


def _order(held: Held) -> tuple[int, int, str]:
    """Stamp; of equal ones a reading after what it measured, a beginning before its end, then names.

    An order of nothing but what happened: whose connection told it first, and how many workers there are,
    changes no joule.
    """
    match held:
        case Opened():
            return held.arrive.t_ns, 0, held.arrive.request
        case Closed():
            return held.end.t_ns, 2, held.end.request
        case Sample():
            return held.t_ns, 4, held.device
        case Outside():
            return held.t_ns, 3, ""
        case _:
            return held.t_ns, 1, held.request


class Intake:
    """Add as it comes, take what is ripe."""

    def __init__(
        self,
        reorder_ns: int,
        devices_of: Callable[[str | None], tuple[str, ...]],
        seen: Callable[[Opened | Closed], None] = lambda _: None,
        *,
        start_ns: int | None = None,
    ) -> None:
        """``seen`` is told of requests as they begin and end, before they are held.

        ``start_ns``: now, to hold all back until a relay came, at most :data:`START_NS`; None: do not.
        """
        self.reorder_ns = self._least_ns = reorder_ns
        self._start_ns = start_ns
        self._devices_of = devices_of
        self._seen = seen
        self._held: list[Held] = []
        self._last_ns = 0
        self._names: set[str] = set()
        self.relays = 0
        self._numbered = 0
        self.late = 0
        self.dropped = 0

    def add_samples(self, samples: list[Sample], age_ns: int = 0) -> None:
        """Readings of a sampler, the oldest taken ``age_ns`` ago.

        Readings of a far host, or stamped at a counter's last edge, come late by nature: all events are
        then held for a little longer than that, at most ``MAX_REORDER_NS``.
        """
        self._held += samples
        wanted = max(self._least_ns, min(age_ns * 5 // 4, MAX_REORDER_NS))
        self.reorder_ns = max(wanted, self.reorder_ns * 999 // 1000)  # a stall of a moment is forgotten

    def add_evidence(self, evidence: Outside) -> None:
        """What is known of work that did not pass through."""
        self._held.append(evidence)

    def add(self, connection: "Connection", message: ToMeter) -> None:
        """One message of a relay (an ``Ask`` is not for here)."""
        match message:
            case Chunk():
                request = connection.running.get(message.key)
                if request is not None:
                    tokens = None if message.tokens < 0 else message.tokens
                    self._held.append(Output(message.t_ns, request, tokens))
            case Opened():
                self._hold(self._opened(connection, message))
            case Closed():
                request = connection.running.pop(message.key, None)
                if request is None:  # its beginning was told to a meter that died, or was dropped
                    self._held.append(_ended(message, self._name(connection, message)))
                else:
                    self._names.discard(request)
                    self._hold(_ended(message, request))
            case Dropped():
                self.dropped += message.count
            case Leaving():
                self._leave(connection)
            case _:
                raise TypeError(f"{type(message).__name__} is not an event")

    def _hold(self, held: Opened | Closed) -> None:
        self._seen(held)
        self._held.append(held)

    def _name(self, connection: "Connection", message: Opened | Closed) -> str:
        """A client may use an id twice at once: the second is told apart by its key."""
        name = message.arrive.request if isinstance(message, Opened) else message.end.request
        return f"{name}~{connection.number}.{message.key}" if name in self._names else name

    def _opened(self, connection: "Connection", message: Opened) -> Opened:
        arrive = message.arrive
        name = self._name(connection, message)
        self._names.add(name)
        connection.running[message.key] = name
        devices = arrive.devices or self._devices_of(arrive.backend)
        return msgspec.structs.replace(
            message, arrive=msgspec.structs.replace(arrive, request=name, devices=devices)
        )

    def connected(self) -> "Connection":
        """A relay came: it listens and can be served from."""
        self.relays += 1
        self._numbered += 1
        return Connection(self._numbered)

    def lost(self, connection: "Connection", t_ns: int) -> None:
        """A relay died: its running requests ended with it."""
        self._leave(connection)
        for key, request in connection.running.items():
            self._names.discard(request)
            end = End(t_ns, request, None, cancelled=True)
            self._hold(Closed(key, end, error_type=RELAY_LOST))
        connection.running.clear()

    def _leave(self, connection: "Connection") -> None:
        self.relays -= not connection.leaving
        connection.leaving = True

    def ripe(self, now_ns: int) -> list[tuple[Held, Event]]:
        """What is older than the reorder time, in order of stamp, and each as the core is to see it."""
        if self._start_ns is not None:
            if self._numbered:  # what it kept comes at once with it
                self._start_ns = min(self._start_ns, now_ns + self.reorder_ns - START_NS)
            if now_ns < self._start_ns + START_NS:
                return []
            self._start_ns = None
        ripe_ns = now_ns - self.reorder_ns
        ripe, held = list[Held](), list[Held]()
        for one in self._held:
            (ripe if stamp_of(one) <= ripe_ns else held).append(one)
        self._held = held
        ripe.sort(key=_order)
        return [(held, self._in_order(held)) for held in ripe]

    def _in_order(self, held: Held) -> Event:
        """What the core sees of it: never before what it has seen."""
        event, t_ns = event_of(held), stamp_of(held)
        if t_ns >= self._last_ns:
            self._last_ns = t_ns
            return event
        self.late += 1
        return msgspec.structs.replace(event, t_ns=self._last_ns)


class Connection:
    """One relay's: its requests by key."""

    __slots__ = ("leaving", "number", "running")

    def __init__(self, number: int) -> None:
        self.number = number
        self.running: dict[int, str] = {}
        self.leaving = False  # it takes no more requests


def _ended(closed: Closed, request: str) -> Closed:
    """The same of a request of that name."""
    return msgspec.structs.replace(closed, end=msgspec.structs.replace(closed.end, request=request))


def event_of(held: Held) -> Arrive | End | Output | Outside | Sample:
    """What the core sees of it."""
    match held:
        case Opened():
            return held.arrive
        case Closed():
            return held.end
        case _:
            return held
