"""Runs the probes of a search in real time, one after the other, as ``strategy`` decides."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadgen.config.spec import Spec
from loadgen.drive.attack import Attack
from loadgen.drive.garbage_collection import no_collections
from loadgen.drive.pacer import Capped, ClosedLoop, OpenLoop, Pacer
from loadgen.energy.accounts import ClockPair
from loadgen.energy.metering import Server, read_clock, read_energy
from loadgen.measure.summary import Measured, generator_bound
from loadgen.measure.window import Window
from loadgen.results.records import Knee, Record
from loadgen.run.session import MeasuredPoint, Session, label
from loadgen.search.strategy import Limits, Probe, Search
from loadgen.workload.arrivals import make_arrivals
from loadgen.workload.lengths import Lengths, parse_length
from proxy.units import NS_PER_SECOND, ns_from_seconds

POLL_INTERVAL_S = 0.25
_SAMPLE_LIMIT = 4000
_STRIKES = 4
SETTLE_LIMIT_S = 30.0
SETTLE_POLL_S = 0.02
_WARM_CONNECTIONS = 64


async def search_knee(session: Session, server: Server) -> Knee:
    """Probe until the search ends, an interrupt, or the load generator becomes the bottleneck."""
    spec = session.config.spec
    limits = Limits(spec.levels[0], spec.levels[-1], spec.mode == "concurrency", spec.budget_seconds)
    search = Search(limits, spec.objectives)
    await server.client.warm(_WARM_CONNECTIONS)
    pair, why = await read_clock(server.admin)
    with no_collections():
        async with asyncio.TaskGroup() as finishing:
            search_run = _SearchRun(session, server, search, pair, why, finishing)
            knee = await search_run.run()
    search_run.keep_all()
    return knee


@dataclass(slots=True)
class _Ended:
    """A probe whose last response has arrived."""

    attack: Attack
    level: float
    part: MeasuredPoint


@dataclass(slots=True)
class _SearchRun:
    session: Session
    server: Server
    search: Search
    pair: ClockPair | None
    notes: Sequence[str]
    finishing: asyncio.TaskGroup
    ended: list[_Ended] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)
    _strikes: int = 0

    async def run(self) -> Knee:
        asked = self.search.next()
        while isinstance(asked, Probe):
            start = time.monotonic()
            if not await self._settle(asked.settle_to):
                return self.search.stopped("interrupted")
            attack, elapsed_s = await self._probe(asked)
            if self.session.interrupted:
                return self.search.stopped("interrupted")
            took_s = time.monotonic() - start
            if why := self._lagged(attack):
                self._strikes += 1
                self._report(asked, f"not counted: {why}")
                if self._strikes > _STRIKES:
                    return self.search.stopped("this machine cannot sustain the rate")
                self.search.wasted(took_s)
            else:
                self._strikes = 0
                self.search.done(asked, elapsed_s, attack.so_far(), took_s)
                self._report(asked, self.search.tallies[-1].text)
            asked = self.search.next()
        return asked

    def _lagged(self, attack: Attack) -> str | None:
        records = attack.so_far()
        measured = Measured(None, None, records, Window(0, 1), lags_ns=attack.lags_ns)
        return generator_bound(measured, records, self.search.slo)

    def _report(self, probe: Probe, text: str) -> None:
        self.session.view.line(f"{probe.kind} {label(self.session.config.spec, probe.level)}: {text}")

    async def _settle(self, most: int | None) -> bool:
        """Wait until the backlog is gone, or for a time limit; return False if the run was interrupted."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while most is not None and sum(attack.in_flight for attack in self.attacks) > most:
            if self.session.interrupted or time.monotonic() > deadline:
                break
            await asyncio.sleep(SETTLE_POLL_S)
        return not self.session.interrupted

    async def _probe(self, probe: Probe) -> tuple[Attack, float]:
        spec, number = self.session.config.spec, len(self.attacks)
        lengths = Lengths(parse_length(spec.input, "--input"), parse_length(spec.output, "--output"))
        attack = self.session.attack(
            self.server, number, lengths, probe_pacer(self.session.config.spec, probe, number)
        )
        self.attacks.append(attack)
        self.session.view.watch(f"{probe.kind} {label(spec, probe.level)}", attack.progress)
        self.finishing.create_task(self._finish(attack, probe))
        sending = asyncio.ensure_future(attack.sending_ended())
        while not sending.done():
            await asyncio.wait([sending], timeout=POLL_INTERVAL_S)
            elapsed_s = (time.monotonic_ns() - attack.start_ns) / NS_PER_SECOND
            if not sending.done() and self.search.stop_now(probe, elapsed_s, some(attack.so_far())):
                attack.stop()
        return attack, (time.monotonic_ns() - attack.start_ns) / NS_PER_SECOND

    async def _finish(self, attack: Attack, probe: Probe) -> None:
        outcome = await attack.run()
        window = probe_window(probe, outcome.sending_end_ns)
        # The clocks were paired once: a request in between would disturb the next probe.
        found = await read_energy(self.server, self.pair, outcome, window, alone=False)
        records, energy, notes = found
        part = MeasuredPoint(outcome, records, window, energy, [*self.notes, *notes])
        self.ended.append(_Ended(attack, probe.level, part))

    def keep_all(self) -> None:
        """Append the summaries after the search: in between they would delay requests."""
        for one in sorted(self.ended, key=lambda one: one.attack.point):
            self.session.keep(self.server, one.level, one.part)


def probe_pacer(spec: Spec, probe: Probe, number: int) -> Pacer:
    """Return the pacer of probe ``number``."""
    end_ns = ns_from_seconds(probe.max_s)
    if spec.mode == "concurrency":
        return ClosedLoop(int(probe.level), end_ns)
    # Each probe has its own random arrivals: the same ones would add no information.
    seed = spec.seed * 1_000_003 + number
    pacer = OpenLoop(make_arrivals(spec.arrivals, probe.level, seed, probe.max_s), end_ns)
    if spec.max_in_flight is None:
        return pacer
    return Capped(pacer, spec.max_in_flight, ns_from_seconds(spec.drain_seconds))


def probe_window(probe: Probe, end_ns: int) -> Window:
    """Return the window of a probe that sent until ``end_ns``."""
    start_ns = ns_from_seconds(probe.warm_s)
    if start_ns >= end_ns:
        start_ns = 0
    note = f"{probe.kind} probe of a search: {(end_ns - start_ns) / NS_PER_SECOND:.1f} s"
    return Window(start_ns, end_ns, (note,))


def some(records: list[Record]) -> list[Record]:
    """Return all records, or an even sample of very many: an evaluation must not delay requests."""
    found = sorted(records, key=lambda record: record.index)
    return found[:: 1 + len(found) // _SAMPLE_LIMIT]
