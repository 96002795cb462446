"""``--search --simulate``.

The probes of ``loadgen.search.strategy``, against one simulator in virtual time.
"""

from dataclasses import dataclass, field

from loadgen.results.records import Knee
from loadgen.run.session import Session, label
from loadgen.search.runner import (
    POLL_INTERVAL_S,
    SETTLE_LIMIT_S,
    SETTLE_POLL_S,
    probe_pacer,
    probe_window,
    some,
)
from loadgen.search.strategy import Limits, Probe, Search
from loadgen.virtual.attack import VirtualAttack, keep
from loadgen.virtual.simulator import Simulator
from loadgen.workload.lengths import Lengths, parse_length
from proxy.units import NS_PER_SECOND, ns_from_seconds


def search_virtually(session: Session, simulator: Simulator) -> Knee:
    """Probe until the search ends or Ctrl-C; the budget is of virtual seconds."""
    spec = session.config.spec
    limits = Limits(spec.levels[0], spec.levels[-1], spec.mode == "concurrency", spec.budget_seconds)
    search_run = _SearchRun(session, simulator, Search(limits, spec.objectives))
    knee = search_run.run()
    search_run.keep_all()
    return knee


@dataclass(slots=True)
class _SearchRun:
    session: Session
    simulator: Simulator
    search: Search
    probes: list[tuple[Probe, VirtualAttack, int]] = field(default_factory=list)

    def run(self) -> Knee:
        """Run one probe after the other, as in real time."""
        asked = self.search.next()
        while isinstance(asked, Probe):
            start_ns = self.simulator.now_ns
            self._settle(asked.settle_to)
            attack, elapsed_ns = self._probe(asked)
            if self.session.interrupted:
                return self.search.stopped("interrupted")
            took_s = (self.simulator.now_ns - start_ns) / NS_PER_SECOND
            self.search.done(asked, elapsed_ns / NS_PER_SECOND, attack.so_far(), took_s)
            name = label(self.session.config.spec, asked.level)
            self.session.view.line(f"{asked.kind} {name}: {self.search.tallies[-1].text}")
            asked = self.search.next()
        return asked

    def _settle(self, most: int | None) -> None:
        """Advance until the backlog is gone, or to a time limit."""
        deadline_ns = self.simulator.now_ns + ns_from_seconds(SETTLE_LIMIT_S)
        while most is not None and sum(attack.in_flight for _, attack, _ in self.probes) > most:
            if self.session.interrupted or self.simulator.now_ns > deadline_ns:
                return
            self.simulator.go(self.simulator.now_ns + ns_from_seconds(SETTLE_POLL_S))

    def _probe(self, probe: Probe) -> tuple[VirtualAttack, int]:
        spec, number = self.session.config.spec, len(self.probes)
        lengths = Lengths(parse_length(spec.input, "--input"), parse_length(spec.output, "--output"))
        attack = VirtualAttack(
            self.simulator, probe_pacer(spec, probe, number), lengths, spec, number,
            lambda: self.session.interrupted, self.simulator.now_ns,
        )  # fmt: skip
        self.session.view.watch(f"{probe.kind} {label(spec, probe.level)}", attack.progress)
        end_ns = ns_from_seconds(probe.max_s)
        while attack.now_ns < end_ns and not self.session.interrupted:
            attack.advance(min(end_ns, attack.now_ns + ns_from_seconds(POLL_INTERVAL_S)))
            if self.search.stop_now(probe, attack.now_ns / NS_PER_SECOND, some(attack.so_far())):
                break
        elapsed_ns = max(attack.now_ns, 1)
        self.probes.append((probe, attack, elapsed_ns))
        return attack, elapsed_ns

    def keep_all(self) -> None:
        """Complete the last requests and append the summaries."""
        for probe, attack, elapsed_ns in self.probes:
            attack.drain(attack.now_ns)
            attack.cut_off()
            keep(self.session, attack, probe.level, probe_window(probe, elapsed_ns))
