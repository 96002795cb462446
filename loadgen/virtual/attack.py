"""One point in virtual time: the same pacers, lengths and records as in real time, without a server.

Each point of a grid starts with a new simulator at time zero; a search uses one for all probes.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from loadgen.config.spec import Spec
from loadgen.drive.attack import Progress
from loadgen.drive.pacer import Capped, OpenLoop, Pacer, Send, Stop, duration_ns
from loadgen.measure.summary import Measured, summarize
from loadgen.measure.window import Window
from loadgen.results.records import EnergyTotals, Point, Record
from loadgen.run.session import Session
from loadgen.virtual.simulator import Result, Simulator
from loadgen.workload.lengths import Lengths
from loadgen.workload.request_bodies import seed_of
from proxy.schema import Parts
from proxy.units import NS_PER_SECOND, ns_from_seconds

_PARTS = ("static", "prefill", "decode", "context", "idle")


@dataclass(slots=True)
class VirtualAttack:
    """One point, like ``Attack`` in real time; its times are since ``start_ns`` of the simulator's clock."""

    simulator: Simulator
    pacer: Pacer
    lengths: Lengths
    spec: Spec
    point: int
    interrupted: Callable[[], bool] = lambda: False
    start_ns: int = 0
    records: list[Record] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    _due: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def now_ns(self) -> int:
        """Time since the start, nanoseconds."""
        return self.simulator.now_ns - self.start_ns

    @property
    def in_flight(self) -> int:
        """Requests without an end so far, including announced future arrivals."""
        return len(self._due)

    def run(self) -> int:
        """Run to the end of all requests, or to an interrupt; return when sending ended, nanoseconds."""
        self.advance(None)
        end_ns = max(duration_ns(self.spec.duration_seconds) or self.now_ns, 1)
        self.drain(max(end_ns, *(scheduled_ns for _, scheduled_ns, _ in self._due.values()), 0))
        while self.now_ns < end_ns and not self.interrupted():
            self._go(end_ns)
        if self.interrupted():
            end_ns = max(min(end_ns, self.now_ns), 1)
        self.cut_off()
        # ServerLog ahead, a number of requests has no end of sending before the last of them.
        last = self.records[-1].scheduled_ns if self.records else 0
        return max(end_ns, last + 1)

    def advance(self, until_ns: int | None) -> None:
        """Send requests and advance to ``until_ns`` or one step further; None: until sending has ended."""
        while not self.interrupted() and (until_ns is None or self.now_ns < until_ns):
            decision = self.pacer.decide(self.now_ns, self.progress.sent, len(self._due))
            if isinstance(decision, Stop) and until_ns is None:
                return
            if not isinstance(decision, Send) or (until_ns is not None and decision.deadline_ns >= until_ns):
                self._go(until_ns)
            elif decision.deadline_ns > self.now_ns and not isinstance(self.pacer, OpenLoop):
                self._go(decision.deadline_ns)
            else:
                self._arrive(decision)

    def drain(self, sending_end_ns: int) -> None:
        """Advance until all requests have ended, at most to the drain time after the end of sending."""
        until_ns = sending_end_ns + ns_from_seconds(self.spec.drain_seconds)
        while self._due and self.now_ns < until_ns and not self.interrupted():
            self._go(until_ns)

    def cut_off(self) -> None:
        """Record requests still in flight as failed with the reason; sort all records by request."""
        if self._due:
            drained = f"not ended {self.spec.drain_seconds:g} s after the last"
            self.records = self.so_far("interrupted" if self.interrupted() else drained)
        self.records.sort(key=lambda record: record.index)

    def so_far(self, error: str | None = None) -> list[Record]:
        """Return the records as of now; requests in flight have ``error``, no end and their tokens so far."""
        outputs = {one.id: one.outputs_us for one in self.simulator.so_far()}
        underway = (
            self._record(Result(name, 200, 0.0, error, outputs_us=outputs.get(name)), *due, ended=False)
            for name, due in self._due.items()
            if due[1] <= self.now_ns
        )
        return [*self.records, *underway]

    def _go(self, until_ns: int | None) -> None:
        self.simulator.go(None if until_ns is None else self.start_ns + until_ns)
        self.progress.elapsed_ns = self.now_ns

    def _arrive(self, decision: Send) -> None:
        number = self.progress.sent
        # The same seed as the workload: the request has the same lengths as against a real server.
        rng = random.Random(seed_of(self.spec.seed * 1_000_003 + self.point, number))
        prompt, output = self.lengths.of(number, rng)
        # Arrivals of an open loop are announced ahead, since the simulator stops at the ends of steps only.
        # This client has no lag; other pacers send when a request ends.
        sent_ns = decision.deadline_ns if isinstance(self.pacer, OpenLoop) else self.now_ns
        name = f"sim-{self.point}-{number}"
        arrive: dict[str, Any] = {
            "id": name,
            # Not before now: rounding to nanoseconds may put it in the past.
            "at_seconds": max((self.start_ns + sent_ns) / NS_PER_SECOND, self.simulator.now_seconds),
            "prompt_tokens": prompt,
            "output_tokens": output,
        }
        if shared := round(prompt * self.spec.prefix_share):
            arrive["prefix"] = ["shared", shared]
        self._due[name] = number, decision.deadline_ns, sent_ns
        self.simulator.arrive(arrive, self._ended)
        self.progress.sent += 1

    def _ended(self, result: Result) -> None:
        record = self._record(result, *self._due.pop(result.id))
        self.records.append(record)
        self.progress.ended += 1
        self.progress.failed += not record.ok
        self.progress.tokens += record.output_tokens or 0
        self.progress.in_flight = len(self._due)

    def _record(
        self, result: Result, index: int, scheduled_ns: int, sent_ns: int, *, ended: bool = True
    ) -> Record:
        # Tokens of one step arrive together, as in one chunk.
        steps = Counter(us * 1000 - self.start_ns for us in accumulate(result.outputs_us or []))
        stamps = list(steps)
        known = {name: result.joules.get(name, 0.0) for name in _PARTS}
        return Record(
            point=self.point,
            index=index,
            id=result.id,
            scheduled_ns=scheduled_ns,
            dispatched_ns=sent_ns,
            sent_ns=sent_ns,
            first_ns=stamps[0] if stamps else None,
            end_ns=ns_from_seconds(result.end_seconds) - self.start_ns if ended else None,
            outputs_ns=stamps,
            counts=list(steps.values()),
            status=result.status,
            error=result.error if result.status == 200 else result.error or f"HTTP {result.status}",
            prompt_tokens=result.prompt_tokens,
            output_tokens=result.output_tokens,
            joules=result.joules.get("total"),
            parts=Parts(**known) if ended else None,
        )


def keep(
    session: Session, attack: VirtualAttack, level: float, window: Window, notes: tuple[str, ...] = ()
) -> Point:
    """Append the summary of a point and its records to the session; return the summary."""
    spec, pacer = session.config.spec, attack.pacer
    measured = Measured(
        concurrency=int(level) if spec.mode == "concurrency" else None,
        rate=level if spec.mode == "rate" else None,
        records=attack.records,
        window=window,
        capped=pacer.bound if isinstance(pacer, Capped) else 0,
        energy=_energy(attack.simulator, attack.start_ns, window),
        idle_watts=attack.simulator.hello.idle_watts,
        notes=notes,
    )
    point = summarize(measured, spec.objectives)
    session.points.append(point)
    session.records.extend(attack.records)
    return point


def _energy(simulator: Simulator, start_ns: int, window: Window) -> EnergyTotals:
    before, after = simulator.joules(start_ns + window.start_ns, start_ns + window.end_ns)
    parts: dict[str, float | None] = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in _PARTS}
    return EnergyTotals(
        joules=after["total"] - before["total"],
        seconds=window.seconds,
        source=f"simulated: {simulator.hello.device}",
        parts=parts | {"unattributed": 0.0},
    )
