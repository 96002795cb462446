"""``--search``: which load to try next, when to stop trying it, and when the knee is known. Pure.

The knee is the highest load at which every objective's share of *all* requests is within its limit. A search
has three phases within its budget:

1. **ramp**: double the load, a second or two each, until a probe misses the SLO. This gives an upper end and
   nothing else. Requests that wait count as outside where they are more than are usually in service: a probe
   shorter than the limit has no late one. A later and longer probe at that load without a miss lifts the
   upper end again (a stall or a cold start).
2. **narrow**, then **knee**: each probe goes where the knee is thought to be, by all probes so far
   (``knee.py``), until the 95 % interval is narrow or only the time for phase 3 is left. Nothing is restarted
   between probes: the load goes on while the last responses of the probe before come in. A queue that built
   up near the knee stays, since it belongs to that load; draining it after each bad probe would keep only the
   good halves of busy periods. Only after an overload the next probe waits, until about as many are in flight
   as usual at the knee, and leaves out the relaxation time of the queue. The rate at which that queue drains
   is the capacity (``capacity.py``). Until a probe of seconds misses the SLO, the estimate is little more
   than its prior: loads then climb from below the last good one of the ramp, limited by the capacity.
3. **confirm**: run a load at the lower end of the interval, or so much lower that a confident verdict is
   likely. It is confirmed if a probe is within the SLO with 95 % confidence and a second one with arrivals of
   its own is within the SLO, too, both without growing latencies. Otherwise the next lower load is tried.
   Only confirmed probes can be the best point of a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from loadgen.config.slo import Objective
from loadgen.measure.window import Window, drift_seconds_per_second
from loadgen.results.records import Knee, Record
from loadgen.search.capacity import Capacity
from loadgen.search.knee import Estimate, Tally, estimate_knee, hopeless, tally, unanswered, with_queue
from loadgen.search.service_time import ServiceTime
from proxy.units import ns_from_seconds

Kind = Literal["ramp", "narrow", "knee", "confirm"]
_WIDE = 1.3
_LEAST_LOOKS = 2
_STUB_S = 5.0
_NEAR = 0.1
_FEW = 3
# Square of the two-sided 95 % quantile of the normal distribution: Wilson's interval of n requests without a
# miss ends at z^2 / (n + z^2).
_Z2 = 1.96**2
# A confirming probe has three times the requests that suffice without a miss, or as many as fit into this
# share of the budget, but never fewer than the least margin and never less than these seconds.
_MARGIN, _LEAST_MARGIN, _CONFIRM_S, _CONFIRM_SHARE = 3.0, 1.5, 4.0, 0.12
# The second probe of a confirmation may overrun the budget by this share of it.
_OVERRUN = 0.05
# Log odds by which the first confirmed load lies below the knee (a fifth of the misses), and each further
# step down.
_BELOW, _STEP = math.log(5), math.log(2)
_STEP_DOWN = 0.75
# Most by which a load exceeds the highest one that held: before and after a probe of seconds missed the SLO.
_STEP_UP, _STEP_NEAR = 1.3, 1.15
# The first longer probe, as a share of the highest load of the ramp within the SLO, and the next, as shares
# of the capacity: knees of multi-slot servers lie there, and an overload costs the time to drain it.
_BELOW_RAMP, _OF_CAPACITY, _OF_CAPACITY_AT_MOST = 0.8, 0.8, 0.92
# Time kept for confirmation: one and a half probes, and one more try.
_RESERVE, _RESERVE_SHARE = 3.3, 0.5
# The first load to confirm is not lower than this share of the knee, however wide the interval is.
_LEAST_OF_KNEE = 0.7
# Service times in which a batch fills up to what another load makes it.
_WARM_SERVICES = 2.5
# Requests that a server may need to get warm: a short probe that misses before is tried again.
_COLD = 100
_INTERRUPTED = "interrupted"
_DOUBT = "; no load was confirmed: give a longer --budget"
_RELAX_AT_MOST_S = 9.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a search; levels in requests/s or requests in flight (``whole``), times in seconds.

    ``tolerance`` is half the relative width of the interval at which a search may end early.
    """

    low: float
    high: float
    whole: bool
    budget_s: float
    tolerance: float = 0.025
    ramp_s: float = 1.0
    narrow_s: float = 4.0
    knee_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Try ``level`` for ``min_s`` to ``max_s`` seconds of which the first ``warm_s`` do not count.

    Before it begins, wait until at most ``settle_to`` requests are in flight (None: begin at once).
    """

    level: float
    kind: Kind
    min_s: float
    max_s: float
    warm_s: float
    settle_to: int | None


@dataclass(slots=True)
class Search:
    """The state of a search: ``next`` returns what to try, ``done`` takes the result."""

    limits: Limits
    slo: Sequence[Objective]
    tallies: list[Tally] = field(default_factory=list)
    spent_s: float = 0.0
    _pass: float | None = None
    _fail: float | None = None
    _service_s: float = 0.0
    _backlog: bool = False
    _looks: int = 0
    _patience: int = 1
    _ran: int = 0
    _brief: bool = False
    _again: bool = False
    _confirmed: tuple[int, ...] = ()
    _held: list[tuple[int, Tally]] = field(default_factory=list)
    _candidate: tuple[float, int] | None = None
    _below: float | None = None
    _unended: int = 0
    _capacity: Capacity = field(default_factory=Capacity)
    _service_time: ServiceTime = field(default_factory=ServiceTime)

    def next(self) -> Probe | Knee:
        """Return the next probe, or the end of the search."""
        left = self.limits.budget_s - self.spent_s
        if self._candidate is not None:
            if probe := self._confirm(self._candidate[0], left):
                return probe
            self._candidate = None
        lowest = self._fail is not None and self._pass is None and self._fail <= self.limits.low
        if lowest and self._lost_at_low():
            return self._ended(None, None, self._fail, f"even {self._fail:g} is outside the SLO")
        if left <= self.limits.ramp_s:
            return self._finish("the budget is spent")
        if lowest:
            return self._probe(self.limits.low, "narrow", left)
        if self._fail is not None:
            return self._closer(left)
        if self._pass is not None and self._pass >= self.limits.high:
            again = None if self._confirmed else self._confirm(self.limits.high, left)
            return again or self._finish("the budget is spent")
        level = self.limits.low if self._pass is None else min(self._pass * 2, self.limits.high)
        return self._probe(level, "ramp", left)

    def stop_now(self, probe: Probe, elapsed_s: float, records: Sequence[Record]) -> bool:
        """Whether a running probe has run long enough; ``records`` are all so far (see ``tally``)."""
        if elapsed_s < probe.min_s:
            return False
        found = self._tally(probe, elapsed_s, records)
        if probe.kind == "ramp" and found.count and not any(outside.any() for outside in found.outside):
            return elapsed_s >= probe.warm_s + (found.service_s or 0.0) and not any(
                unanswered(found, self.slo, self._in_service(found, records, elapsed_s))
            )
        return any(hopeless(outside) for outside in found.outside)

    def _tally(self, probe: Probe, elapsed_s: float, records: Sequence[Record]) -> Tally:
        short = probe.kind == "ramp"
        return tally(probe.level, probe.warm_s, records, self.slo, elapsed_s, short=short)

    def _in_service(self, found: Tally, records: Sequence[Record], elapsed_s: float) -> float:
        """Return the mean number of requests in flight without a queue, by Little's law."""
        return found.level * (1.0 if self.limits.whole else self._service_time.mean(records, elapsed_s))

    def done(self, probe: Probe, elapsed_s: float, records: Sequence[Record], took_s: float) -> None:
        """Take a probe that sent for ``elapsed_s``; ``took_s`` includes what settling cost."""
        self.spent_s += took_s
        settled_s = took_s - elapsed_s
        if probe.settle_to is not None and not self.limits.whole:
            self._capacity.drained(self._unended - probe.settle_to, settled_s)
        self._unended = sum(r.ok and r.end_ns is None for r in records)
        found = self._tally(probe, elapsed_s, records)
        if not self.limits.whole:
            found = replace(found, expected=probe.level * max(0.0, elapsed_s - probe.warm_s))
        window = Window(ns_from_seconds(probe.warm_s), max(1, ns_from_seconds(elapsed_s)))
        steady = drift_seconds_per_second(records, window) is None
        found = replace(found, short=probe.kind == "ramp", steady=steady)
        if found.short:
            found = with_queue(found, self.slo, self._in_service(found, records, elapsed_s))
        held = steady and found.count > 0 and not found.short and not found.misses(self.slo)
        if held and elapsed_s - probe.warm_s >= _CONFIRM_S:
            self._held.append((self._ran, found))
        self.tallies.append(found)
        self._ran += 1
        self._looks += probe.kind == "knee"
        if not found.count:  # the next one is the same, for twice as long
            self._patience *= 2
            return
        self._patience = 1
        self._backlog = found.misses(self.slo)
        if probe.kind == "ramp" and found.most_outside < _FEW:
            self._backlog = False  # one slow request among few is no queue; it stays in the estimate
        if found.short and not self._backlog:
            self._service_time.add(records, elapsed_s)
        if found.service_s and (not self._backlog or not self._service_s):
            self._service_s = found.service_s
        self._bracket(probe, found)
        if probe.kind == "confirm":
            self._take_confirmation(probe, found)

    def _bracket(self, probe: Probe, found: Tally) -> None:
        """Move the ends between which the knee lies."""
        if self._backlog and probe.kind == "ramp" and not self._again and self._may_be_cold(found):
            self._again = True  # the next probe is the same again, once the queue has gone
            return
        if self._again and not found.misses(self.slo):
            self._forget(probe.level)
        self._again = False
        if self._backlog:
            self._fail = min(probe.level, self._fail or probe.level)
            self._brief = probe.kind == "ramp"
            if probe.kind != "ramp" or self._fail <= self.limits.low:
                # A ramp probe passes on too few requests to be outside: count only shares that are met.
                met = (t.level for t in self.tallies if t.count and not t.misses(self.slo))
                self._pass = max(met, default=None)
            return
        self._pass = max(probe.level, self._pass or 0.0)
        above = self._fail is not None and probe.level >= self._fail
        if above and self._brief and probe.kind != "ramp" and found.certain(self.slo):
            self._fail = None  # the miss was a stall or a cold start: forget it, and go on doubling
            self._forget(probe.level)

    def _may_be_cold(self, found: Tally) -> bool:
        """Whether a miss may be that of a server's first requests."""
        lost = any(hopeless(outside) for outside in found.outside)
        return not lost and sum(t.arrived for t in self.tallies) < _COLD and found.level > self.limits.low

    def _forget(self, level: float) -> None:
        """Drop the misses of short probes up to ``level``, which a later probe refuted."""
        self.tallies = [
            replace(t, outside=tuple(outside[:0] for outside in t.outside))
            if t.short and t.level <= level and t.misses(self.slo)
            else t
            for t in self.tallies
        ]

    def _take_confirmation(self, probe: Probe, found: Tally) -> None:
        """Note whether a load is confirmed: a confident probe, then one more within the SLO."""
        if not found.steady or found.misses(self.slo):
            self._candidate, self._below = None, probe.level
        elif self._candidate is not None and self._candidate[0] == probe.level:
            self._confirmed, self._candidate = (self._candidate[1], self._ran - 1), None
        elif found.certain(self.slo):
            self._candidate = (probe.level, self._ran - 1)
        else:
            self._candidate, self._below = None, probe.level

    def wasted(self, took_s: float) -> None:
        """Time went by and nothing was learned: the next probe is the same again."""
        self.spent_s += took_s
        self._ran += 1

    def stopped(self, reason: str) -> Knee:
        """Return the end from outside: interrupted, or the generator could not drive the load."""
        return self._finish(reason)

    def _closer(self, left: float) -> Probe | Knee:
        found = self._estimate()
        fine = max(self.limits.tolerance * found.middle, 0.5 if self.limits.whole else 0.0)
        narrow = self._looks >= _LEAST_LOOKS and (found.high - found.low) / 2 <= fine
        reason = "its interval is narrow" if narrow else "the budget is spent"
        if narrow and self._confirmed:
            return self._finish(reason)
        reserve = 0.0
        if not self._confirmed:
            level = self._confirmable(found)
            reserve = min(_RESERVE * self._confirm_s(level), _RESERVE_SHARE * self.limits.budget_s)
            if narrow or self._below is not None or left - reserve < _STUB_S:
                if probe := self._confirm(level, left):
                    return probe
                reserve = 0.0
        if left - reserve < _STUB_S:
            return self._finish(reason)
        kind: Kind = "narrow" if found.high > _WIDE * found.low and not self._looks else "knee"
        return self._probe(self._level(self._try_next(found)), kind, left - reserve)

    def _ceiling(self) -> float:
        """Return the highest load to try next: one step above what held for more than a moment.

        A load above capacity looks good until its queue has grown to the limit, and leaves that queue behind.
        """
        capacity = self._capacity.rate or math.inf
        held = [t.level for t in self.tallies if not t.short and t.count and not t.misses(self.slo)]
        if not held:
            return capacity
        brief = [t.level for t in self.tallies if t.short and t.count and not t.misses(self.slo)]
        below = [level for level in brief if level < (self._fail or math.inf)]
        step = _STEP_NEAR if self._missed() else _STEP_UP
        return max(step * max(held), min(max(below, default=0.0), capacity))

    def _missed(self) -> bool:
        """Whether a probe of seconds missed the SLO: before, the estimate is little more than its prior."""
        return any(t.misses(self.slo) for t in self.tallies if not t.short)

    def _try_next(self, found: Estimate) -> float:
        """Return the load of the next probe: the estimate, once there is one, else a step up.

        A stall or a cold start in a short probe looks like a cliff that the estimate would never pass: such
        an upper end is tried again.
        """
        ceiling, capacity = self._ceiling(), self._capacity.rate
        if not any(t.count and not t.short for t in self.tallies):
            return self._first(found)
        if self._brief and self._fail is not None and self._fail <= ceiling < math.inf:
            return self._fail
        if capacity is not None and not self._missed():
            usual = max(found.middle, _OF_CAPACITY * capacity)
            return min(ceiling, _OF_CAPACITY_AT_MOST * capacity, usual)
        return min(found.middle, ceiling)

    def _first(self, found: Estimate) -> float:
        """Return the load of the first longer probe: not far below what the ramp passed."""
        passed = [t.level for t in self.tallies if t.count and not t.misses(self.slo)]
        if self.limits.whole or not passed:
            return min(found.middle, self._fail or math.inf)
        return _BELOW_RAMP * max(passed)

    def _confirmable(self, found: Estimate) -> float:
        """Return the load to confirm: where a confident verdict is likely, below failed ones."""
        level = min(found.low, found.middle * math.exp(-_BELOW / found.slope))
        level = max(level, _LEAST_OF_KNEE * found.middle)
        if self._below is not None:
            level = min(level, self._below * min(_STEP_DOWN, math.exp(-_STEP / found.slope)))
            if self.limits.whole:
                level = min(level, self._below - 1)
        return self._level(level)

    def _confirm_s(self, level: float) -> float:
        """Return the seconds of the first confirming probe; the second has half."""
        once = self._enough() / self._rate(level)
        wanted = min(_MARGIN * once, _CONFIRM_SHARE * self.limits.budget_s)
        return max(_CONFIRM_S, 4 * self._service_s, _LEAST_MARGIN * once, wanted)

    def _enough(self) -> float:
        """Return the requests that give confidence if none is outside."""
        return max(_Z2 * o.percentile / (100 - o.percentile) for o in self.slo)

    def _rate(self, level: float) -> float:
        return level / max(self._service_s, 1e-3) if self.limits.whole else level

    def _confirm(self, level: float, left: float) -> Probe | None:
        """Return a confirming probe; None where the time left cannot make a verdict certain."""
        again = self._candidate is not None and self._candidate[0] == level
        probe = self._probe(level, "confirm", math.inf)
        overrun = _OVERRUN * self.limits.budget_s
        spare = left - probe.warm_s + (overrun if again else 0.0)
        wanted = self._confirm_s(level)
        once = self._enough() / self._rate(level)
        # The second of a pair has half; the first leaves a quarter of the time to it.
        least = _CONFIRM_S if again else max(_CONFIRM_S, 1.05 * once)
        counted = min(max(_CONFIRM_S, wanted / 2), spare) if again else min(wanted, max(0.75 * spare, least))
        second = 0.0 if again else _CONFIRM_S + (probe.warm_s if self.limits.whole else 0.0) - overrun
        if counted < least or spare < least + second or level * 1.001 < self.limits.low:
            return None
        return replace(probe, min_s=probe.warm_s + counted, max_s=probe.warm_s + counted)

    def _lost_at_low(self) -> bool:
        """Whether the lowest load is outside for certain: a lost probe, or two that missed."""
        seen = [t for t in self.tallies if t.level <= self.limits.low and t.count]
        return sum(t.misses(self.slo) for t in seen) > 1 or any(hopeless(o) for t in seen for o in t.outside)

    def _estimate(self) -> Estimate:
        return estimate_knee(self.tallies, self.slo, self._service_s, self._capacity)

    def _probe(self, level: float, kind: Kind, left: float) -> Probe:
        limits, service = self.limits, self._service_s
        # No request can be late before the limit has gone by; yet doubling must leave most of the budget.
        ramp_s = max(limits.ramp_s, min(2 * self._wait_s(), limits.budget_s / 40))
        counted = {"ramp": ramp_s, "narrow": limits.narrow_s}.get(kind, limits.knee_s)
        before = self.tallies[-1].level if self.tallies else 0.0
        # An overload is another state than the one to measure; a bad probe near the knee is not.
        overload = self._backlog and (limits.whole or self._again or level < (1 - _NEAR) * before)
        warm = max(0.2, service) if kind == "ramp" else max(1.0, 1.5 * service)
        if kind != "ramp" and (overload or level > (1 + _NEAR) * before):
            warm = max(_WARM_SERVICES * service, self._relaxation_s(level), 1.0)
        if not overload and not limits.whole and abs(level - before) <= _NEAR * before:
            warm = 0.0  # nearly the same load: its queue is this one's
        most = warm + self._patience * max(counted, 4 * service, 0.0 if limits.whole else _FEW / level)
        if left - most < _STUB_S:
            most = left  # rather one longer probe than a stub at the end
        least = warm + min(counted, max(2 * service, counted / 2))
        return Probe(level, kind, min(least, most), most, warm, self._settle_to(level) if overload else None)

    def _wait_s(self) -> float:
        """Return the queueing time that the objectives allow."""
        waits = {"ttft": 0.0, "e2e": self._service_s}
        allowed = [o.limit_seconds - waits[o.metric] for o in self.slo if o.metric in waits]
        return max(0.0, min(allowed, default=0.0))

    def _relaxation_s(self, level: float) -> float:
        """Return the time in which a queue at the knee forgets its start.

        Heavy traffic: waits have an exponential tail of rate theta, and reach the limit w with the share
        allowed, so theta w is about 3; the relaxation time of M/M/1 is then 4/9 level w^2.
        """
        return 0.0 if self.limits.whole else min(_RELAX_AT_MOST_S, 0.5 * level * self._wait_s() ** 2)

    def _settle_to(self, level: float) -> int:
        """Return the requests in flight at which a probe may begin: the usual number at the knee.

        Those in service, and the mean of the queue, which is a quarter of the limit for waits as above.
        """
        if self.limits.whole:
            return 0
        return max(1, int(level * (self._service_s + self._wait_s() / 4)))

    def _level(self, level: float) -> float:
        level = min(max(level, self.limits.low), self.limits.high)
        return max(1.0, float(int(level + 1e-6))) if self.limits.whole else float(f"{level:.4g}")

    def _finish(self, why: str) -> Knee:
        if self._fail is None and self._pass is not None and self._pass >= self.limits.high:
            within = f"even {self._pass:g} is within the SLO"
            return self._ended(None, self._pass, None, within if self._confirmed else within + _DOUBT)
        if self._pass is None or self._fail is None:
            return self._ended(None, self._pass, self._fail, f"{why} before the knee was between two probes")
        found = self._estimate()
        if not self._confirmed and why != _INTERRUPTED:
            self._confirmed = self._confirmed_already(found.low)
        reason = why + ("" if self._confirmed or why == _INTERRUPTED else _DOUBT)
        return self._ended(
            self._level(found.middle), found.low_end(self.tallies, self.slo), found.high, reason
        )

    def _confirmed_already(self, low: float) -> tuple[int, ...]:
        """Return probes that confirm a load below the interval though they were not made for it.

        One is within the SLO with confidence; another, at that load or above, is within it as well.
        """
        for index, one in sorted(self._held, key=lambda held: -held[1].level):
            others = [i for i, t in self._held if i != index and t.level >= one.level]
            if one.level <= low and others and one.certain(self.slo):
                return (index,)
        return ()

    def _ended(self, level: float | None, low: float | None, high: float | None, reason: str) -> Knee:
        kind: Literal["rate", "concurrency"] = "concurrency" if self.limits.whole else "rate"
        return Knee(
            kind=kind, level=level, low=low, high=high, reason=reason,
            probes=len(self.tallies), seconds=self.spent_s, confirmed=self._confirmed,
        )  # fmt: skip
