"""``--simulate PROFILE``: the same pacers, lengths and metrics in virtual time, without a server.

The simulator is a process of its own that speaks JSON lines (``python -m proxy.simulator.virtual``); each
point begins with a fresh one at time zero. What comes out says that it is simulated.
"""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Self

import msgspec

from loadgen.attack import Progress
from loadgen.config import Spec
from loadgen.lengths import Lengths
from loadgen.pacer import Capped, Hold, OpenLoop, Pacer, Send, Stop, duration_ns
from loadgen.planning import plan
from loadgen.preflight import PreflightError
from loadgen.records import EnergyTotals, Point, Record
from loadgen.runner import Finished, Session, label
from loadgen.summary import Measured, summarize
from loadgen.window import Window, steady_window
from proxy.schema import Parts
from proxy.units import NS_PER_SECOND, ns_from_seconds

_PARTS = ("static", "prefill", "decode", "context", "idle")


class _Hello(msgspec.Struct):
    profile: str
    model: str
    device: str
    idle_watts: float | None = None


class _Result(msgspec.Struct):
    id: str
    status: int
    end_seconds: float
    error: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    outputs_us: list[int] | None = None
    joules: dict[str, float] = {}


class _Answer(msgspec.Struct):
    now_seconds: float | None = None
    ended: list[_Result] = []
    joules: list[dict[str, float]] = []
    error: str | None = None


class Simulator:
    """The other end of the pipe; a context manager. Raises ``PreflightError`` with what it says."""

    def __init__(self, profile: str) -> None:
        argv = [sys.executable, "-m", "proxy.simulator.virtual", profile]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self.now_ns, self.now_seconds = 0, 0.0
        self.hello = msgspec.json.decode(self._line(), type=_Hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def tell(self, command: dict[str, Any]) -> None:
        """A command without an answer."""
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")

    def ask(self, command: dict[str, Any]) -> _Answer:
        """A command and its answer; time goes on to where the answer says."""
        self.tell(command)
        if self._process.stdin is not None:
            self._process.stdin.flush()
        answer = msgspec.json.decode(self._line(), type=_Answer)
        if answer.error is not None:
            raise PreflightError(f"--simulate: {answer.error}")
        if answer.now_seconds is not None:
            self.now_seconds = answer.now_seconds
            self.now_ns = ns_from_seconds(answer.now_seconds)
        return answer

    def joules(self, *at_ns: int) -> list[dict[str, float]]:
        """Cumulative joules by part at times that have passed."""
        return self.ask({"energy_at_seconds": [t / NS_PER_SECOND for t in at_ns]}).joules

    def _line(self) -> bytes:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if line:
            return line
        said = self._process.communicate()[1].decode().strip().splitlines()
        raise PreflightError(f"--simulate: {said[-1] if said else 'the simulator ended'}")


@dataclass(slots=True)
class VirtualAttack:
    """One point, as ``Attack`` is one in real time."""

    simulator: Simulator
    pacer: Pacer
    lengths: Lengths
    spec: Spec
    point: int
    records: list[Record] = field(default_factory=list)
    _due: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _sent: int = 0

    def run(self) -> int:
        """All requests to their end; when sending ended, nanoseconds."""
        sim = self.simulator
        while not isinstance(decision := self.pacer.decide(sim.now_ns, self._sent, len(self._due)), Stop):
            if isinstance(decision, Hold):
                self._go(None)
            elif decision.deadline_ns > sim.now_ns and not isinstance(self.pacer, OpenLoop):
                self._go(decision.deadline_ns)
            else:
                self._arrive(decision)
        end_ns = max(duration_ns(self.spec.duration_seconds) or sim.now_ns, 1)
        while self._due:
            self._go(None)
        while sim.now_ns < end_ns:
            self._go(end_ns)
        self.records.sort(key=lambda record: record.index)
        # Told ahead, a number of requests has no end of sending before the last of them.
        last = self.records[-1].scheduled_ns if self.records else 0
        return max(end_ns, last + 1)

    def _go(self, until_ns: int | None) -> None:
        until = None if until_ns is None else until_ns / NS_PER_SECOND
        for result in self.simulator.ask({"until_seconds": until}).ended:
            self.records.append(self._record(result, *self._due.pop(result.id)))

    def _arrive(self, decision: Send) -> None:
        # The seed of the workload itself: the same request has the same lengths against a real server.
        rng = random.Random(f"{self.spec.seed * 1_000_003 + self.point} {self._sent}")
        prompt, output = self.lengths.of(self._sent, rng)
        # An open loop's arrivals are told ahead: the simulator stops at the ends of steps only.
        sim, name = self.simulator, f"sim-{self.point}-{self._sent}"
        ahead = decision.deadline_ns > sim.now_ns
        now = decision.deadline_ns if ahead else sim.now_ns
        arrive: dict[str, Any] = {
            "id": name,
            # As it was told: rounded to nanoseconds it may lie in the past.
            "at_seconds": now / NS_PER_SECOND if ahead else sim.now_seconds,
            "prompt_tokens": prompt,
            "output_tokens": output,
        }
        if shared := round(prompt * self.spec.prefix_share):
            arrive["prefix"] = ["shared", shared]
        sim.tell({"arrive": arrive})
        self._due[name] = self._sent, decision.deadline_ns, now
        self._sent += 1

    def _record(self, result: _Result, index: int, scheduled_ns: int, sent_ns: int) -> Record:
        # Tokens of one step come at one time, as in one chunk.
        steps = Counter(us * 1000 for us in accumulate(result.outputs_us or []))
        stamps = list(steps)
        return Record(
            point=self.point,
            index=index,
            id=result.id,
            scheduled_ns=scheduled_ns,
            dispatched_ns=sent_ns,
            sent_ns=sent_ns,
            first_ns=stamps[0] if stamps else None,
            end_ns=ns_from_seconds(result.end_seconds),
            outputs_ns=stamps,
            counts=list(steps.values()),
            status=result.status,
            error=None if result.status == 200 else result.error or f"HTTP {result.status}",
            prompt_tokens=result.prompt_tokens,
            output_tokens=result.output_tokens,
            joules=result.joules.get("total"),
            parts=Parts(**{name: result.joules.get(name, 0.0) for name in _PARTS}),
        )


def simulate(session: Session, profile: str) -> Finished:
    """A whole run in virtual time; raises ``PreflightError`` for a profile that cannot be used."""
    spec, model = session.config.spec, ""
    for number, level in enumerate(spec.levels):
        with Simulator(profile) as simulator:
            model = simulator.hello.model
            point, records = _point(session, simulator, number, level)
        session.points.append(point)
        session.records.extend(records)
        session.view.point_ended(point)
    session.notes.append(f"simulated in virtual time by profile {profile}: nothing was measured")
    return session.finished(model, None)


def _point(session: Session, simulator: Simulator, number: int, level: float) -> tuple[Point, list[Record]]:
    spec = session.config.spec
    lengths, pacer = plan(spec, level)
    attack = VirtualAttack(simulator, pacer, lengths, spec, number)
    session.view.watch(label(spec, level), Progress())
    end_ns = attack.run()
    concurrency = int(level) if spec.mode == "concurrency" else None
    window = steady_window(attack.records, end_ns, spec.warmup_rule, concurrency)
    measured = Measured(
        concurrency=concurrency,
        rate=level if spec.mode == "rate" else None,
        records=attack.records,
        window=window,
        capped=pacer.bound if isinstance(pacer, Capped) else 0,
        energy=_energy(simulator, window),
        idle_watts=simulator.hello.idle_watts,
    )
    return summarize(measured, spec.objectives), attack.records


def _energy(simulator: Simulator, window: Window) -> EnergyTotals:
    before, after = simulator.joules(window.start_ns, window.end_ns)
    parts: dict[str, float | None] = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in _PARTS}
    return EnergyTotals(
        joules=after["total"] - before["total"],
        seconds=window.seconds,
        source=f"simulated: {simulator.hello.device}",
        parts=parts | {"unattributed": 0.0},
    )
