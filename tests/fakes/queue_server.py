"""A server of ``slots`` and a fixed service time, in virtual time: the records a client would have made."""

import bisect
import heapq
from dataclasses import dataclass, field

import msgspec
import numpy as np

from loadgen.results.records import Knee, Record
from loadgen.search.knee import Tally
from loadgen.search.strategy import Probe, Search
from proxy.units import NS_PER_SECOND

_LOOK_S = 0.25


@dataclass(slots=True)
class QueueServer:
    """First come, first served; the first token comes ``first_s`` after the start of service."""

    slots: int = 32
    service_s: float = 0.68
    first_s: float = 0.05
    seed: int = 0
    now_s: float = 0.0
    _free: list[float] = field(init=False)
    _ends: list[float] = field(default_factory=list)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._free = [0.0] * self.slots
        self._rng = np.random.default_rng(self.seed)

    def find(self, search: Search) -> tuple[Knee, list[Tally]]:
        """Run a whole search."""
        while isinstance(asked := search.next(), Probe):
            before = self.now_s
            self._settle(asked.settle_to)
            start = self.now_s
            records = self._closed(search, asked) if search.limits.whole else self._open(search, asked)
            search.done(asked, self.now_s - start, self._seen(records, start), self.now_s - before)
        return asked, search.tallies

    def _settle(self, most: int | None) -> None:
        under_way = sorted(end for end in self._ends if end > self.now_s)
        if most is not None and len(under_way) > most:
            self.now_s = under_way[len(under_way) - 1 - most]

    def _open(self, search: Search, probe: Probe) -> list[Record]:
        start, records = self.now_s, list[Record]()
        at = start + self._rng.exponential(1 / probe.level)
        while not self._over(search, probe, start, records):
            self.now_s += _LOOK_S
            while at < self.now_s:
                records.append(self._serve(at, start, len(records)))
                at += self._rng.exponential(1 / probe.level)
        return records

    def _closed(self, search: Search, probe: Probe) -> list[Record]:
        start, records = self.now_s, list[Record]()
        users = [start] * int(probe.level)
        while not self._over(search, probe, start, records):
            self.now_s += _LOOK_S
            while users[0] < self.now_s:
                record = self._serve(users[0], start, len(records))
                records.append(record)
                heapq.heapreplace(users, start + (record.end_ns or 0) / NS_PER_SECOND)
        return records

    def _over(self, search: Search, probe: Probe, start: float, records: list[Record]) -> bool:
        elapsed = self.now_s - start
        return elapsed >= probe.max_s or search.stop_now(probe, elapsed, self._seen(records, start))

    def _serve(self, at: float, start: float, index: int) -> Record:
        begin = max(at, heapq.heappop(self._free))
        heapq.heappush(self._free, begin + self.service_s)
        self._ends.append(begin + self.service_s)
        due, first, end = (
            round((t - start) * NS_PER_SECOND) for t in (at, begin + self.first_s, begin + self.service_s)
        )
        return Record(
            point=0, index=index, id="", scheduled_ns=due, dispatched_ns=due, sent_ns=due,
            first_ns=first, end_ns=end,
        )  # fmt: skip

    def _seen(self, records: list[Record], start: float) -> list[Record]:
        """What a client knows now: later stamps are not known yet."""
        now_ns = round((self.now_s - start) * NS_PER_SECOND)
        sent = records[: bisect.bisect_right(records, now_ns, key=lambda record: record.scheduled_ns)]
        return [
            msgspec.structs.replace(
                record,
                first_ns=record.first_ns if (record.first_ns or 0) <= now_ns else None,
                end_ns=record.end_ns if (record.end_ns or 0) <= now_ns else None,
            )
            for record in sent
        ]
