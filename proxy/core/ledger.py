"""The ledger: the one writer of records. Call metadata and shares in, frozen ``RequestEnergy`` out.

Bounded: the oldest finished records go first. Queries read; nothing they do changes state. Entries lie
nearly in order of their beginning, so a query of the last minute looks at little more than that minute.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.core.attribution import Share
from proxy.core.events import Arrive
from proxy.core.request_events import RequestEnd, RequestStart
from proxy.schema import RequestEnergy, Unknown
from proxy.units import NS_PER_MS, NS_PER_SECOND, seconds_from_ns

_MISSED_NS: Final = 100 * NS_PER_MS  # of a request's beginning; less is within the usual period of counters
UNREAD: Final = "compressed"  # evidence of an answer whose tokens could not be read: its times alone
_LATEST_NS: Final = 60 * NS_PER_SECOND  # an entry's beginning is at most so much older than its place
GROUPINGS: Final[dict[str, Callable[[RequestEnergy], str | None]]] = {
    "model": lambda record: record.model,
    "tenant": lambda record: record.tenant,
    "backend": lambda record: record.backend,
    "route": lambda record: record.route,
}


@dataclass(slots=True)
class Entry:
    """One request: what the relay said of it, and its record as it is now."""

    opened: RequestStart
    record: RequestEnergy
    closed: RequestEnd | None = None
    first_output_ns: int | None = None
    missed_ns: int = 0  # of its beginning, which the attribution did not see


class Summary(msgspec.Struct, kw_only=True):
    """Totals of one group's final records; ``pending`` ended too, and are not measured yet.

    ``joules`` sums what is known; ``unknown`` counts what is not, or not wholly. ``joules_per_output_token``
    is that of the requests which are wholly known.
    """

    group: str | None
    requests: int = 0
    pending: int = 0
    unknown: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    joules: float = 0.0
    joules_per_output_token: float | None = None


class Ledger:
    """Records by request id, newest last. ``unix`` turns the host's monotonic stamps into Unix time."""

    def __init__(self, keep: int, unix: Callable[[int], int]) -> None:
        self._keep = keep
        self._unix = unix
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._running: set[str] = set()
        self._finished: deque[str] = deque()

    def open(self, opened: RequestStart, source: str | None, seen_ns: int | None = None) -> None:
        """Begin the record of a request.

        Args:
            opened: its start, as the relay reported it.
            source: of the energy readings.
            seen_ns: the stamp with which the attribution saw it, where that is later: a relay that connects
                to a new meter reports its running requests after the first readings were used.
        """
        arrive = opened.arrive
        record = RequestEnergy(
            request_id=arrive.request,
            trace_id=opened.trace_id,
            span_id=opened.client_span_id,
            route=arrive.route,
            model=arrive.model,
            backend=arrive.backend,
            tenant=arrive.tenant,
            stream=arrive.stream,
            start_unix_ns=self._unix(arrive.t_ns),
            source=source,
            unknown=Unknown.RUNNING,
        )
        self._entries.pop(arrive.request, None)  # an id used again begins anew, as the newest
        missed = 0 if seen_ns is None else max(seen_ns - arrive.t_ns, 0)
        self._entries[arrive.request] = Entry(opened, record, missed_ns=missed)
        self._running.add(arrive.request)

    def output(self, request: str, t_ns: int) -> None:
        """A chunk of a running request came."""
        entry = self._entries.get(request)
        if entry is not None and entry.first_output_ns is None:
            entry.first_output_ns = t_ns

    def close(self, closed: RequestEnd, source: str | None = None) -> Entry | None:
        """A request ended; its joules come with its share.

        The entry if that is all there will be: its beginning was never seen, so its joules stay unknown.
        """
        entry = self._entries.get(closed.end.request)
        if entry is None:
            return self._unseen(closed, source)
        if entry.closed is None:
            self._ended(entry, closed)
        return None

    def _unseen(self, closed: RequestEnd, source: str | None) -> Entry:
        """A record of what the end alone tells."""
        end = closed.end
        opened = RequestStart(Arrive(end.t_ns, end.request, "unknown"), method="", path="")
        self.open(opened, source)
        entry = self._entries[end.request]
        self._ended(entry, closed)
        entry.record = msgspec.structs.replace(
            entry.record, duration_s=None, ttft_s=None, final=True, unknown=Unknown.BEGINNING_NOT_SEEN
        )
        self._settled(end.request)
        return entry

    def _ended(self, entry: Entry, closed: RequestEnd) -> None:
        entry.closed = closed
        end, start = closed.end, entry.opened.arrive.t_ns
        first = entry.first_output_ns
        entry.record = msgspec.structs.replace(
            entry.record,
            status=end.status,
            cancelled=end.cancelled,
            duration_s=seconds_from_ns(end.t_ns - start),
            ttft_s=None if first is None else seconds_from_ns(first - start),
            prompt_tokens=end.prompt_tokens,
            cached_tokens=end.cached_tokens,
            output_tokens=end.completion_tokens,
            units=end.units,
            unknown=Unknown.NOT_MEASURED_YET,
        )

    def settle(self, share: Share) -> Entry | None:
        """Put a share into its record; the entry, or None for a request not known."""
        entry = self._entries.get(share.request)
        if entry is None:
            return None
        entry.record = measured(entry, share)
        if entry.closed is not None and not entry.closed.metered:
            entry.record = msgspec.structs.replace(entry.record, evidence=UNREAD)
        if share.final:
            self._settled(share.request)
        return entry

    def _settled(self, request: str) -> None:
        if request in self._running:
            self._running.remove(request)
            self._finished.append(request)
            if len(self._finished) > self._keep:
                self._drop(self._finished.popleft())

    def _drop(self, request: str) -> None:
        if request not in self._running:  # an id may be in use again
            self._entries.pop(request, None)

    def get(self, request: str) -> Entry | None:
        """The entry of a request."""
        return self._entries.get(request)

    def pending(self) -> bool:
        """Whether a request has ended and is not final."""
        return any(self._entries[name].closed is not None for name in self._running)

    def in_flight(self) -> dict[str, int]:
        """Requests whose answer has not ended, by backend."""
        counts: dict[str, int] = {}
        for name in self._running:
            entry = self._entries[name]
            if entry.closed is None:
                backend = entry.record.backend or ""
                counts[backend] = counts.get(backend, 0) + 1
        return counts

    def records(
        self,
        since_unix_ns: int | None = None,
        model: str | None = None,
        tenant: str | None = None,
    ) -> Iterator[RequestEnergy]:
        """Ended requests, newest first."""
        for entry in reversed(self._entries.values()):
            record = entry.record
            if since_unix_ns is not None and record.start_unix_ns < since_unix_ns:
                if record.start_unix_ns < since_unix_ns - _LATEST_NS:
                    return
                continue
            wanted = (model is None or record.model == model) and (tenant is None or record.tenant == tenant)
            if entry.closed is not None and wanted:
                yield record

    def summary(self, by: str, window_s: float | None, now_unix_ns: int) -> list[Summary]:
        """Totals by model, tenant, backend or route, over the last ``window_s`` seconds (None: all kept)."""
        since = None if window_s is None else now_unix_ns - round(window_s * NS_PER_SECOND)
        return summarise(self.records(since), GROUPINGS[by])


def measured(entry: Entry, share: Share) -> RequestEnergy:
    """Return the record with the joules of a share; they are a part where the beginning was missed."""
    if entry.missed_ns > _MISSED_NS and share.unknown is None:
        share = msgspec.structs.replace(share, joules_high=None, unknown=Unknown.BEGINNING_NOT_SEEN)
    return with_share(entry.record, share)


def with_share(record: RequestEnergy, share: Share) -> RequestEnergy:
    """Return the record with the joules of a share."""
    return msgspec.structs.replace(
        record,
        joules=share.joules,
        joules_low=share.joules_low,
        joules_high=share.joules_high,
        parts=share.parts,
        devices=share.devices,
        policy=share.policy,
        evidence=share.evidence,
        engines=share.engines,
        cached_from=share.cached_from,
        final=share.final,
        unknown=share.unknown,
    )


def summarise(
    records: Iterable[RequestEnergy], group_of: Callable[[RequestEnergy], str | None]
) -> list[Summary]:
    """Totals by group, most joules first."""
    groups: dict[str | None, Summary] = {}
    known: dict[str | None, tuple[float, int]] = {}
    for record in records:
        group = group_of(record)
        summary = groups.setdefault(group, Summary(group=group))
        if not record.final:
            summary.pending += 1
            continue
        summary.requests += 1
        summary.unknown += record.unknown is not None
        summary.joules += record.joules or 0.0
        summary.prompt_tokens += record.prompt_tokens or 0
        summary.output_tokens += record.output_tokens or 0
        if record.unknown is None and record.joules is not None and record.output_tokens:
            joules, tokens = known.get(group, (0.0, 0))
            known[group] = joules + record.joules, tokens + record.output_tokens
    for group, (joules, tokens) in known.items():
        groups[group].joules_per_output_token = joules / tokens
    return sorted(groups.values(), key=lambda s: -s.joules)
