"""Intake: what relays and the sampler say, put in order of time.

Events of several processes and of the sampler's thread come a little late and interleaved. They are held
for ``reorder_ns`` and handed on sorted by stamp; the core sees one later than that at the stamp of the last
one handed on, and it is counted: nothing is lost. A meter that was started again first waits for what the
relays kept meanwhile, so that requests older than its first sample are seen as such.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from operator import itemgetter
from typing import Final, TypeVar

import msgspec

from proxy.core.events import Arrive, End, Event, Output, Outside, Sample
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.ipc import Ask, Chunk, Closed, Dropped, Leaving, Opened, ToMeter
from proxy.units import NS_PER_SECOND

Held = Sample | RequestStart | Output | RequestEnd | Outside
RELAY_LOST: Final = "relay_lost"
MAX_REORDER_NS: Final = 60 * NS_PER_SECOND
_Key = TypeVar("_Key", int, str)
_RENAMED_KEPT: Final = 4096
START_NS: Final = 3 * NS_PER_SECOND // 2  # at start: a relay tries to connect again once a second


# Of events of one stamp a reading comes after what it measured, a beginning before its end; then by name: an
# order of nothing but what happened. Whose connection told it first, and how many workers there are, changes
# no joule.
_BEGUN, _SAID, _ENDED, _EVIDENCE, _READING = range(5)


class Intake:
    """Add as it comes, take what is ripe."""

    def __init__(
        self,
        reorder_ns: int,
        devices_of: Callable[[str | None], tuple[str, ...]],
        seen: Callable[[RequestStart | RequestEnd], None] = lambda _: None,
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
        self._fresh: list[tuple[int, int, str, int, Held]] = []  # stamp, rank, name, number: in this order
        self._held: list[tuple[int, int, str, int, Held]] = []  # those of before, sorted
        self._count = 0
        self._last_ns = 0
        self._names: set[str] = set()
        self._newest: dict[str, str] = {}  # by id, the name of its last request where that is another
        self.relays = 0
        self._numbered = 0
        self.late = 0
        self.dropped = 0

    def add_samples(self, samples: list[Sample], age_ns: int = 0) -> None:
        """Readings of a sampler, the oldest taken ``age_ns`` ago.

        Readings of a far host, or stamped at a counter's last edge, come late by nature: all events are
        then held for a little longer than that, at most ``MAX_REORDER_NS``.
        """
        for sample in samples:
            self._hold(sample.t_ns, _READING, sample.device, sample)
        wanted = max(self._least_ns, min(age_ns * 5 // 4, MAX_REORDER_NS))
        self.reorder_ns = max(wanted, self.reorder_ns * 999 // 1000)  # a stall of a moment is forgotten

    def add_evidence(self, evidence: Outside) -> None:
        """What is known of work that did not pass through."""
        self._hold(evidence.t_ns, _EVIDENCE, "", evidence)

    def add(self, connection: "Connection", message: ToMeter) -> None:
        """One message of a relay (an ``Ask`` is not for here)."""
        match message:
            case Chunk():
                request = connection.running.get(message.key)
                if request is not None:
                    tokens = None if message.tokens < 0 else message.tokens
                    self._hold(message.t_ns, _SAID, request, Output(message.t_ns, request, tokens))
            case Opened():
                opened = self._opened(connection, message)
                self._seen(opened)
                self._hold(opened.arrive.t_ns, _BEGUN, opened.arrive.request, opened)
            case Closed():
                request = connection.running.pop(message.key, None)
                if request is None:  # its beginning was told to a meter that died, or was dropped
                    request = self._name(connection, message)
                    self._hold(message.end.t_ns, _ENDED, request, _ended(message, request))
                else:
                    self._close(_ended(message, request))
            case Dropped():
                self.dropped += message.count
            case Leaving():
                self._leave(connection)
            case _:
                raise TypeError(f"{type(message).__name__} is not an event")

    def _hold(self, t_ns: int, rank: int, name: str, held: Held) -> None:
        self._count += 1
        self._fresh.append((t_ns, rank, name, self._count, held))

    def _close(self, closed: RequestEnd) -> None:
        request = closed.end.request
        self._seen(closed)
        self._hold(closed.end.t_ns, _ENDED, request, closed)

    def final(self, request: str) -> None:
        """Nothing more will be said of it: its name may be used again."""
        self._names.discard(request)

    def newest(self, request: str) -> str:
        """The name of the last request with that id."""
        return self._newest.get(request, request)

    def _name(self, connection: "Connection", message: Opened | Closed) -> str:
        """A client may use an id again before it is final: the second is told apart by its key."""
        name = message.arrive.request if isinstance(message, Opened) else message.end.request
        return f"{name}~{connection.number}.{message.key}" if name in self._names else name

    def _opened(self, connection: "Connection", message: Opened) -> RequestStart:
        arrive = message.arrive
        name = self._name(connection, message)
        self._names.add(name)
        connection.running[message.key] = name
        self._newest.pop(arrive.request, None)
        if name != arrive.request:
            _put(self._newest, arrive.request, name)
            _put(connection.renamed, message.key, name)
        devices = arrive.devices or self._devices_of(arrive.backend)
        return _started(message, msgspec.structs.replace(arrive, request=name, devices=devices))

    def connected(self) -> "Connection":
        """A relay came: it listens and can be served from."""
        self.relays += 1
        self._numbered += 1
        return Connection(self._numbered)

    def lost(self, connection: "Connection", t_ns: int) -> None:
        """A relay died: its running requests ended with it."""
        self._leave(connection)
        for request in connection.running.values():
            self._close(RequestEnd(End(t_ns, request, None, cancelled=True), error_type=RELAY_LOST))
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
        held, fresh = self._held, self._fresh
        if fresh:
            first = bisect_left(held, min(fresh))  # what is before stays, and may be a minute of events
            held[first:] = sorted(held[first:] + fresh)
            self._fresh = []
        count = bisect_right(held, now_ns - self.reorder_ns, key=itemgetter(0))
        ripe = held[:count]
        del held[:count]
        return [(held, self._in_order(t_ns, held)) for t_ns, _, _, _, held in ripe]

    def _in_order(self, t_ns: int, held: Held) -> Event:
        """What the core sees of it: never before what it has seen."""
        event = _event_of(held)
        if t_ns >= self._last_ns:
            self._last_ns = t_ns
            return event
        self.late += 1
        return msgspec.structs.replace(event, t_ns=self._last_ns)


class Connection:
    """One relay's: its requests by key."""

    __slots__ = ("leaving", "number", "renamed", "running")

    def __init__(self, number: int) -> None:
        self.number = number
        self.running: dict[int, str] = {}
        self.leaving = False  # it takes no more requests
        self.renamed: dict[int, str] = {}  # by key, those that go by another name than their id

    def name_of(self, ask: Ask) -> str:
        """Of the request that is asked for."""
        return ask.request if ask.key is None else self.renamed.get(ask.key, ask.request)


def _put(names: dict[_Key, str], key: _Key, name: str) -> None:
    """Keep a name, and no more than some."""
    names[key] = name
    if len(names) > _RENAMED_KEPT:
        del names[next(iter(names))]


def _started(message: Opened, arrive: Arrive) -> RequestStart:
    """Return the start of a request, with ``arrive`` in place of the message's own."""
    return RequestStart(
        arrive,
        message.method,
        message.path,
        message.server_address,
        message.server_port,
        message.trace_id,
        message.server_span_id,
        message.client_span_id,
        message.parent_span_id,
        message.trace_sampled,
        message.max_tokens,
        message.received_ns,
    )


def _ended(message: Closed, request: str) -> RequestEnd:
    """Return the end of a request, under the name that the meter gave it."""
    return RequestEnd(
        msgspec.structs.replace(message.end, request=request),
        message.first_byte_ns,
        message.response_id,
        message.response_model,
        message.finish_reasons,
        message.error_type,
        message.metered,
        message.unread,
    )


def _event_of(held: Held) -> Arrive | End | Output | Outside | Sample:
    """What the core sees of it."""
    match held:
        case RequestStart():
            return held.arrive
        case RequestEnd():
            return held.end
        case _:
            return held
