"""What the meter costs, all of it but its sockets: frames, order, attribution, records, metrics.

By relayed answer, sent whole or streamed; and how long it stands still in a rush, before there is a fit. CPU
times of this thread; the timeline is a made-up one, and no clock is waited for.
"""

import gc
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from proxy.clock import now_ns
from proxy.config import Backend, MeterConfig
from proxy.core.events import Arrive, Device, End, Sample
from proxy.energy.source import Found
from proxy.exporters.base import Exporters
from proxy.exporters.metrics import Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from proxy.ipc import LENGTH_BYTES, Chunk, Closed, Opened, ToMeter, decode_to_meter, encode_frame
from proxy.meter.meter import Meter
from proxy.subprocesses import COLLECT_AFTER
from proxy.units import NS_PER_MS, NS_PER_SECOND

pytestmark = pytest.mark.bench

FLUSH_NS, TICK_FLUSHES, SAMPLE_FLUSHES = 10 * NS_PER_MS, 2, 5
WATTS = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """Clients in a closed loop for so long; each answer takes about ``life_ms`` and has ``tokens``."""

    seconds: float
    clients: int
    life_ms: float
    tokens: int
    stream: bool

    def messages(self, start_ns: int) -> list[tuple[int, ToMeter]]:
        """What relays tell, by the time they tell it."""
        dice, told, key = random.Random(1), list[tuple[int, ToMeter]](), 0
        for client in range(self.clients):
            t_ns = start_ns + client * NS_PER_MS // 3
            while t_ns < start_ns + self.seconds * NS_PER_SECOND:
                key += 1
                name, end_ns = (
                    f"req-{key:032x}",
                    t_ns + round(self.life_ms * dice.uniform(0.7, 1.3) * NS_PER_MS),
                )
                arrive = Arrive(t_ns, name, "chat", "m", self.stream, (), None, "b")
                told.append((t_ns, Opened(key, arrive, trace_id=f"{key:032x}", received_ns=t_ns)))
                for token in range(1, self.tokens + 1) if self.stream else ():
                    at_ns = t_ns + (end_ns - t_ns) * token // self.tokens
                    told.append((at_ns, Chunk(key, at_ns, 1)))
                end = End(end_ns, name, 200, False, 300, None, self.tokens)
                told.append((end_ns, Closed(key, end, end_ns, f"chatcmpl-{key}", "m", ("stop",))))
                t_ns = end_ns + NS_PER_MS // 10
        return sorted(told, key=lambda one: one[0])


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of one answer, and the longest the meter did nothing else; answers, joules."""

    answer_us: float
    longest_ms: float
    answers: int
    joules: float


def run(load: Load) -> Cost:
    """A meter under that load."""
    device = Device("gpu0")
    exporters = Exporters([PrometheusExporter(lambda: Snapshot([], {}, 0))])
    config = MeterConfig(keep_records=1_000_000)
    found = Found(device, "energy counter", None, None)
    meter = Meter(config, [Backend("http://b", "b")], [found], "made-up", exporters)
    relay, start_ns = meter.intake.connected(), now_ns()
    told = load.messages(start_ns)
    frames: dict[int, list[ToMeter]] = {}
    for t_ns, message in told:
        frames.setdefault(t_ns // FLUSH_NS + 1, []).append(message)
    first = start_ns // FLUSH_NS - 200
    pieces = []
    for flush in range(first, max(frames) + 300):
        body = encode_frame(frames.get(flush, []))[LENGTH_BYTES:]
        begin = time.thread_time()
        meter.receive(relay, decode_to_meter(body))
        if flush % SAMPLE_FLUSHES == 0:
            millijoules = (flush - first) * FLUSH_NS / NS_PER_SECOND * WATTS * 1e3
            meter.intake.add_samples([Sample(flush * FLUSH_NS, "gpu0", energy_mj=millijoules)])
        if flush % TICK_FLUSHES == 0:
            meter.tick(flush * FLUSH_NS)
        pieces.append(time.thread_time() - begin)
    answers = sum(isinstance(message, Closed) for _, message in told)
    joules = sum(account.requests_joules for account in meter.attributor.accounts())
    return Cost(sum(pieces) / answers * 1e6, max(pieces) * 1e3, answers, joules)


@pytest.fixture(autouse=True)
def _as_deployed() -> Iterator[None]:
    """The collector of a process that serves."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER)
    yield
    gc.set_threshold(*before)


def test_an_answer_costs_the_same_however_many_there_are_and_none_waits_long() -> None:
    few, many = Load(4.0, 8, 2.5, 10, stream=False), Load(40.0, 8, 2.5, 10, stream=False)
    longer = Load(40.0, 64, 300.0, 60, stream=False)
    costs = {load: run(load) for load in (few, many, longer, replace(longer, stream=True))}
    for load, cost in costs.items():
        kind = "streamed" if load.stream else "whole"
        rate = cost.answers / load.seconds
        sys.stdout.write(
            f"\n{kind}, {load.tokens} tokens, {rate:.0f} answers/s for {load.seconds:g} s: "
            f"{cost.answer_us:.0f} us each, longest {cost.longest_ms:.0f} ms"
        )
    sys.stdout.write("\n")
    assert costs[many].joules == pytest.approx(many.seconds * WATTS, rel=0.01)
    assert costs[many].answer_us < 1.5 * costs[few].answer_us
    assert costs[many].longest_ms < 2.0 * costs[few].longest_ms, "what came in 30 s would be divided at once"
