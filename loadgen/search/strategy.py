"""``--search``: which load to try next, when to stop trying it, and when the knee is known. Pure.

The knee is the highest load at which every objective's share of *all* requests is within its limit.
Doubling finds an upper end; then every probe is put where the knee is thought to be, by all probes
so far (``knee.py``), until its 95 % interval is narrow or the budget is spent. Nothing is restarted
between probes: the load goes on while the last answers of the probe before come in, and only after one
that built up a queue does the next wait until that has gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from loadgen.config.slo import Objective
from loadgen.results.records import Knee, Record
from loadgen.search.knee import Tally, hopeless, knee_interval, tally

Kind = Literal["ramp", "narrow", "knee"]
_WIDE = 1.3
_LEAST_LOOKS = 2
_STUB_S = 5.0
_NEAR = 0.1
_FEW = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may use; levels in requests/s or requests in flight (``whole``), times in seconds.

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
    """The state of a search: ``next`` says what to try, ``done`` takes what was seen."""

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

    def next(self) -> Probe | Knee:
        """The next probe, or the end of the search."""
        left = self.limits.budget_s - self.spent_s
        if self._fail is None and self._pass is not None and self._pass >= self.limits.high:
            return self._ended(None, self._pass, None, f"even {self._pass:g} is within the SLO")
        if self._fail is not None and self._pass is None and self._fail <= self.limits.low:
            return self._ended(None, None, self._fail, f"even {self._fail:g} is outside the SLO")
        if left <= self.limits.ramp_s:
            return self._knee("the budget is spent")
        if self._fail is not None:
            return self._closer(left)
        level = self.limits.low if self._pass is None else min(self._pass * 2, self.limits.high)
        return self._probe(level, "ramp", left)

    def stop_now(self, probe: Probe, elapsed_s: float, records: Sequence[Record]) -> bool:
        """Whether a running probe has said enough; ``records`` are all so far (see ``tally``)."""
        if elapsed_s < probe.min_s:
            return False
        found = tally(probe.level, probe.warm_s, records, self.slo, elapsed_s)
        if probe.kind == "ramp" and found.count and not any(outside.any() for outside in found.outside):
            return elapsed_s >= probe.warm_s + (found.service_s or 0.0)
        return any(hopeless(outside) for outside in found.outside)

    def done(self, probe: Probe, elapsed_s: float, records: Sequence[Record], took_s: float) -> None:
        """Take a probe that sent for ``elapsed_s``; ``took_s`` includes what settling cost."""
        self.spent_s += took_s
        found = tally(probe.level, probe.warm_s, records, self.slo, elapsed_s)
        if not self.limits.whole:
            found = replace(found, expected=probe.level * max(0.0, elapsed_s - probe.warm_s))
        self.tallies.append(found)
        self._looks += probe.kind == "knee"
        if not found.count:  # the next one asks the same, for twice as long
            self._patience *= 2
            return
        self._patience = 1
        self._backlog = found.misses(self.slo)
        if probe.kind == "ramp" and found.most_outside < _FEW:
            self._backlog = False  # one slow request among few is no queue; it stays in the estimate
        if found.service_s and (not self._backlog or not self._service_s):
            self._service_s = found.service_s
        if self._backlog:
            self._fail = min(probe.level, self._fail or probe.level)
            if self._fail <= self.limits.low and self._pass is not None and self._pass <= self.limits.low:
                self._pass = None  # it passed on too few requests to be outside
        else:
            self._pass = max(probe.level, self._pass or 0.0)

    def wasted(self, took_s: float) -> None:
        """Time went by and nothing was learned: the next probe is the same again."""
        self.spent_s += took_s

    def stopped(self, reason: str) -> Knee:
        """The end from outside: interrupted, or the generator could not drive the load."""
        return self._knee(reason)

    def _closer(self, left: float) -> Probe | Knee:
        low, middle, high = knee_interval(self.tallies, self.slo, self._service_s)
        fine = max(self.limits.tolerance * middle, 0.5 if self.limits.whole else 0.0)
        if self._looks >= _LEAST_LOOKS and (high - low) / 2 <= fine:
            return self._knee("its interval is narrow")
        kind: Kind = "narrow" if high > _WIDE * low and not self._looks else "knee"
        return self._probe(self._level(middle), kind, left)

    def _probe(self, level: float, kind: Kind, left: float) -> Probe:
        limits, service = self.limits, self._service_s
        counted = {"ramp": limits.ramp_s, "narrow": limits.narrow_s, "knee": limits.knee_s}[kind]
        warm = max(0.2, service) if kind == "ramp" else max(1.0, 1.5 * service)
        before = self.tallies[-1].level if self.tallies else 0.0
        if not self._backlog and not limits.whole and abs(level - before) < _NEAR * before:
            warm = 0.0  # nearly the same load, and no queue left from before
        most = warm + self._patience * max(counted, 4 * service, 0.0 if limits.whole else _FEW / level)
        if left - most < _STUB_S:
            most = left  # rather one longer probe than a stub at the end
        least = warm + min(counted, max(2 * service, counted / 2))
        return Probe(level, kind, min(least, most), most, warm, self._settle_to(level))

    def _settle_to(self, level: float) -> int | None:
        if self.limits.whole:
            return 0
        return max(1, int(level * self._service_s)) if self._backlog else None

    def _level(self, level: float) -> float:
        level = min(max(level, self.limits.low), self.limits.high)
        return max(1.0, float(int(level + 1e-6))) if self.limits.whole else float(f"{level:.4g}")

    def _knee(self, reason: str) -> Knee:
        if self._pass is None or self._fail is None:
            return self._ended(
                None, self._pass, self._fail, f"{reason} before the knee was between two probes"
            )
        low, middle, high = knee_interval(self.tallies, self.slo, self._service_s)
        return self._ended(self._level(middle), low, high, reason)

    def _ended(self, level: float | None, low: float | None, high: float | None, reason: str) -> Knee:
        kind: Literal["rate", "concurrency"] = "concurrency" if self.limits.whole else "rate"
        return Knee(
            kind=kind, level=level, low=low, high=high, reason=reason,
            probes=len(self.tallies), seconds=self.spent_s,
        )  # fmt: skip
