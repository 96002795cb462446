"""Intake: orders the messages of relays and the samples of sensors by time.

Events of several processes and of the sampler threads arrive a little late and interleaved, and the
attribution needs them in order. They are held for ``reorder_ns`` and released sorted by stamp. An event that
arrives later than that is released with the stamp of the last one before it and is counted (``late``):
nothing is lost. A restarted meter first waits for the messages that the relays kept in the meantime, so that
requests older than its first sample are recognised as such.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, TypeVar

import msgspec

from proxy.core.events import Arrive, End, Event, Output, Outside, Sample, Span
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.ipc import Chunk, Closed, Dropped, EnergyQuery, JobReport, Leaving, Opened, ToMeter
from proxy.units import NS_PER_SECOND

Held = Sample | RequestStart | Output | RequestEnd | Outside | Span
_WAITING_NS: Final = 3600 * NS_PER_SECOND  # a job that waits is taken to begin so late, until it has begun
RELAY_LOST: Final = "relay_lost"
MAX_REORDER_NS: Final = 60 * NS_PER_SECOND  # longer delays would hold too many events in memory
_Key = TypeVar("_Key", int, str)
_RENAMED_KEPT: Final = 4096  # bounds memory; only ids that were used twice are kept
START_NS: Final = 3 * NS_PER_SECOND // 2  # at start: a relay tries to reconnect once a second


# Order of events with equal stamps: a reading comes after the events that it measured, a start before its
# end. Then by name, so that the order depends on the events alone: neither the number of workers nor the
# connection that delivers first changes a joule.
_START, _OUTPUT, _END, _EVIDENCE, _READING = range(5)


class Intake:
    """Holds events until they can be released in order of time. Not thread-safe: event loop only.

    Args:
        reorder_ns: Least time for which an event is held.
        devices_of: Returns the ids of the devices that a backend computes on.
        seen: Called for the start and end of each request when it arrives, before it is held.
        start_ns: The present time, to hold back all events until a relay has connected, at most
            ``START_NS``; None: do not wait.

    Attributes:
        relays: Number of relays that are connected and not draining.
        late: Events that were released with a later stamp than their own.
        dropped: Events that relays discarded because their buffer was full.
    """

    def __init__(
        self,
        reorder_ns: int,
        devices_of: Callable[[str | None], tuple[str, ...]],
        seen: Callable[[RequestStart | RequestEnd], None] = lambda _: None,
        *,
        start_ns: int | None = None,
    ) -> None:
        self.reorder_ns = self._least_ns = reorder_ns
        self._start_ns = start_ns
        self._devices_of = devices_of
        self._seen = seen
        self._fresh: list[
            tuple[int, int, str, int, Held]
        ] = []  # (stamp, rank, name, number, event), unsorted
        self._held: list[tuple[int, int, str, int, Held]] = []  # the same, sorted
        self._count = 0
        self._last_ns = 0
        self._names: set[str] = set()  # of requests that are not final
        self._newest: dict[str, str] = {}  # id -> name of its last request, if that is not the id itself
        self.relays = 0
        self._numbered = 0
        self.late = 0
        self.dropped = 0

    def add_samples(self, samples: list[Sample], age_ns: int = 0) -> None:
        """Add readings of a sampler.

        Readings of another host, and those stamped at the last update of a counter, are always late: all
        events are then held a quarter longer than that, at most ``MAX_REORDER_NS``.

        Args:
            samples: Readings in any order.
            age_ns: Age of the oldest of them.
        """
        for sample in samples:
            self._hold(sample.t_ns, _READING, sample.device, sample)
        needed_ns = max(self._least_ns, min(age_ns * 5 // 4, MAX_REORDER_NS))
        self.reorder_ns = max(needed_ns, self.reorder_ns * 999 // 1000)  # decays slowly after a short stall

    def add_evidence(self, evidence: Outside) -> None:
        """Add evidence of work that did not pass through the proxy."""
        self._hold(evidence.t_ns, _EVIDENCE, "", evidence)

    def add_all(self, connection: "Connection", messages: Sequence[ToMeter]) -> list[ToMeter]:
        """Add the events among the messages of a relay, in their order; return the messages that are none."""
        others: list[ToMeter] = []
        running, fresh = connection.running, self._fresh
        for message in messages:
            # Nearly all messages are chunks: no call and no pattern matching for these.
            if type(message) is Chunk:
                request = running.get(message.key)
                if request is not None:
                    t_ns, tokens = message.t_ns, message.tokens
                    self._count += 1
                    output = Output(t_ns, request, None if tokens < 0 else tokens)
                    fresh.append((t_ns, _OUTPUT, request, self._count, output))
            elif not self.add(connection, message):
                others.append(message)
        return others

    def add(self, connection: "Connection", message: ToMeter) -> bool:
        """Add a message of a relay; return False for one that is not an event."""
        match message:
            case Chunk():
                self.add_all(connection, [message])
            case Opened():
                opened = self._opened(connection, message)
                self._seen(opened)
                self._hold(opened.arrive.t_ns, _START, opened.arrive.request, opened)
            case Closed():
                request = connection.running.pop(message.key, None)
                if request is None:  # its start was sent to an earlier meter, or was dropped
                    request = self._name(connection, message)
                    self._hold(message.end.t_ns, _END, request, _ended(message, request))
                else:
                    self._close(_ended(message, request))
            case JobReport():
                request = connection.running.get(message.key)
                if request is not None:
                    self._hold(message.t_ns, _EVIDENCE, request, _job_span(message, request))
            case Dropped():
                self.dropped += message.count
            case Leaving():
                self._leave(connection)
            case _:
                return False
        return True

    def _hold(self, t_ns: int, rank: int, name: str, held: Held) -> None:
        self._count += 1
        self._fresh.append((t_ns, rank, name, self._count, held))

    def _close(self, closed: RequestEnd) -> None:
        request = closed.end.request
        self._seen(closed)
        self._hold(closed.end.t_ns, _END, request, closed)

    def forget(self, request: str) -> None:
        """Release the name of a request that is final; another request may have it."""
        self._names.discard(request)

    def newest(self, request: str) -> str:
        """Return the name of the last request with this id."""
        return self._newest.get(request, request)

    def _name(self, connection: "Connection", message: Opened | Closed) -> str:
        """Return a unique name: an id that is reused before its request is final is extended by the key."""
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
        """Register a relay that has connected, and return the state of its connection."""
        self.relays += 1
        self._numbered += 1
        return Connection(self._numbered)

    def connection_lost(self, connection: "Connection", t_ns: int) -> None:
        """End the running requests of a relay whose connection was lost at ``t_ns``."""
        self._leave(connection)
        for request in connection.running.values():
            self._close(RequestEnd(End(t_ns, request, None, cancelled=True), error_type=RELAY_LOST))
        connection.running.clear()

    def _leave(self, connection: "Connection") -> None:
        self.relays -= not connection.leaving
        connection.leaving = True

    def release(self, now_ns: int) -> list[tuple[Held, Event]]:
        """Return and remove the events that have been held long enough, in order of their stamps.

        Returns:
            Pairs of the event with all its data and the event for the core, whose stamps never decrease.
        """
        if self._start_ns is not None:
            if self._numbered:  # a relay sends what it kept as soon as it has connected
                self._start_ns = min(self._start_ns, now_ns + self.reorder_ns - START_NS)
            if now_ns < self._start_ns + START_NS:
                return []
            self._start_ns = None
        held, fresh = self._held, self._fresh
        if fresh:
            first = bisect_left(
                held, min(fresh)
            )  # earlier ones, up to a minute of events, are sorted already
            held[first:] = sorted(held[first:] + fresh)
            self._fresh = []
        count = bisect_right(held, now_ns - self.reorder_ns, key=itemgetter(0))
        released = held[:count]
        del held[:count]
        return self._in_order(released)

    def _in_order(self, released: list[tuple[int, int, str, int, Held]]) -> list[tuple[Held, Event]]:
        """Return the events for the core, none with a stamp before that of the last one."""
        pairs: list[tuple[Held, Event]] = []
        last = self._last_ns
        for t_ns, _, _, _, held in released:
            event = held if type(held) is Output else _event_of(held)
            if t_ns >= last:
                last = t_ns
            else:
                self.late += 1
                event = msgspec.structs.replace(event, t_ns=last)
            pairs.append((held, event))
        self._last_ns = last
        return pairs


class Connection:
    """State of the connection of one relay.

    Attributes:
        number: Distinguishes connections; never reused.
        running: Names of its running requests, by key.
        leaving: The relay drains or has disconnected; it accepts no more requests.
        renamed: Names that differ from the request's id, by key.
    """

    __slots__ = ("leaving", "number", "renamed", "running")

    def __init__(self, number: int) -> None:
        self.number = number
        self.running: dict[int, str] = {}
        self.leaving = False
        self.renamed: dict[int, str] = {}

    def name_of(self, query: EnergyQuery) -> str:
        """Return the name of the queried request."""
        return query.request if query.key is None else self.renamed.get(query.key, query.request)


def _put(names: dict[_Key, str], key: _Key, name: str) -> None:
    """Add a name; drop the oldest one beyond ``_RENAMED_KEPT``."""
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


def _job_span(message: JobReport, request: str) -> Span:
    """Return the phases of a job as evidence for the core."""
    started_ns = message.started_ns if message.started_ns is not None else message.t_ns + _WAITING_NS
    return Span(message.t_ns, request, first_token_ns=started_ns, end_ns=message.end_ns)


def _event_of(held: Held) -> Arrive | End | Output | Outside | Sample | Span:
    """Return the part of an event that the core processes."""
    match held:
        case RequestStart():
            return held.arrive
        case RequestEnd():
            return held.end
        case _:
            return held
