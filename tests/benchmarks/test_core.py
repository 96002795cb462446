"""Speed and memory of attribution: events a second, cost by concurrency, bounds; beside a naive splitter.

``make bench``; figures in docs/benchmarks.md. Times are CPU times of this process.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from proxy.core.attribution import Attributor
from proxy.core.events import Arrive, Device, End, Event, Header, Output, Sample

pytestmark = pytest.mark.bench

S = 1_000_000_000
STEP_NS = 20_000_000
GPU = ("gpu0",)


def fleet(streams: int, outputs: int, tokens_each: int = 200) -> Iterator[Event]:
    """``streams`` requests at any time, each of ``tokens_each`` chunks, one a step; a counter of 100 ms."""
    yield Header(1, (Device("gpu0"),))
    yield Sample(0, "gpu0", energy_mj=0.0)
    running: dict[str, int] = {}
    serial = step = done = 0
    while done < outputs:
        step += 1
        t_ns = step * STEP_NS
        while len(running) < streams:
            name = f"r{serial}"
            # Streams that began together would end together: the first ones are of all lengths.
            running[name] = tokens_each - (serial * tokens_each // streams if serial < streams else 0)
            yield Arrive(t_ns - STEP_NS // 4, name, "chat", "m", True, GPU)
            serial += 1
        for offset, name in enumerate(list(running)):
            yield Output(t_ns + offset, name, 1)
            running[name] -= 1
            if not running[name]:
                del running[name]
                yield End(t_ns + offset, name, 200, False, 300, 0, tokens_each)
        done += streams
        if step % 5 == 0:
            joules = t_ns / S * (90.0 + 200.0 * (streams / (streams + 8.0)))
            yield Sample(t_ns + STEP_NS // 2, "gpu0", energy_mj=joules * 1e3)


def attribute(events: list[Event], policy: str) -> float:
    """CPU seconds to attribute a timeline."""
    attributor = Attributor(policy)
    start = time.process_time()
    attributor.feed_all(events)
    attributor.flush()
    attributor.drain()
    return time.process_time() - start


def naive(events: list[Event]) -> float:
    """CPU seconds of the obvious loop: each reading's joules equally over the requests active then."""
    start = time.process_time()
    joules: dict[str, float] = {}
    active: set[str] = set()
    last = 0.0
    for event in events:
        if isinstance(event, Arrive):
            active.add(event.request)
        elif isinstance(event, End):
            active.discard(event.request)
        elif isinstance(event, Sample) and event.energy_mj is not None:
            share = (event.energy_mj - last) / 1e3 / max(len(active), 1)
            for name in active:
                joules[name] = joules.get(name, 0.0) + share
            last = event.energy_mj
    return time.process_time() - start


def best(measure: Callable[[], float], times: int = 3) -> float:
    return min(measure() for _ in range(times))


def report(line: str) -> None:
    sys.stdout.write(f"\n{line}")


@pytest.mark.parametrize("policy", ["overlap", "tokens", "steps"])
def test_events_a_second(policy: str) -> None:
    events = list(fleet(64, 600_000))
    outputs = sum(isinstance(event, Output) for event in events)
    seconds, simple = best(lambda: attribute(events, policy)), best(lambda: naive(events))
    report(
        f"{policy}: {outputs / seconds / 1e6:.2f} M outputs/s, {seconds / outputs * 1e6:.2f} us each; "
        f"naive equal split (looks at no output) {simple / outputs * 1e6:.2f} us"
    )
    # Absolute speed is for the record; what is asserted is the ratio to the simplest loop there is.
    assert seconds < 25.0 * simple


def test_the_cost_of_an_event_does_not_grow_with_concurrency() -> None:
    cost = {}
    for streams in (1, 10, 100, 1_000, 10_000):
        events = list(fleet(streams, max(200_000, 200 * streams)))
        outputs = sum(isinstance(event, Output) for event in events)
        cost[streams] = best(lambda events=events: attribute(events, "steps")) / outputs  # type: ignore[misc]
    report("us an output by concurrency: " + ", ".join(f"{n}: {c * 1e6:.2f}" for n, c in cost.items()))
    assert cost[10_000] <= 1.3 * cost[1]


def test_memory_stays_bounded() -> None:
    attributor = Attributor("steps")
    peaks = []
    tracemalloc.start()
    for index, event in enumerate(fleet(50, 1_000_000, tokens_each=20)):
        attributor.feed(event)
        if index % 1_000 == 0:
            attributor.drain()
        if index in {300_000, 1_050_000}:
            peaks.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    finished = 1_000_000 // 20
    report(f"{finished:,} requests: {peaks[0] / 1e6:.1f} MB after 30 %, {peaks[1] / 1e6:.1f} MB after all")
    # Only the edges kept for later queries of windows may grow, up to a limit.
    assert peaks[1] - peaks[0] < 20e6


def test_memory_of_streams_that_never_end_stays_bounded() -> None:
    attributor = Attributor("steps")
    peaks = []
    tracemalloc.start()
    for index, event in enumerate(fleet(20, 600_000, tokens_each=10**9)):
        attributor.feed(event)
        if index in {250_000, 600_000}:
            peaks.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    report(f"endless streams: {peaks[0] / 1e6:.1f} MB after 250k chunks, {peaks[1] / 1e6:.1f} MB after 600k")
    assert peaks[1] - peaks[0] < 10e6


def whole(answers: int) -> list[Event]:
    """Draw 400 non-streamed responses per second, of 80 tokens each, in 0.2 s."""
    events: list[Event] = [Header(1, (Device("gpu0"),)), Sample(0, "gpu0", energy_mj=0.0)]
    for number in range(answers):
        name, start = f"r{number}", number * S // 400 + 1
        events += [
            Arrive(start, name, "chat", "m", False, GPU),
            End(start + S // 5, name, 200, False, 30, 0, 80),
        ]
    events += [Sample(n * S // 10, "gpu0", energy_mj=3e4 * n) for n in range(1, answers // 40 + 20)]
    return sorted(events, key=lambda event: event.t_ns or 0)


def test_the_cost_of_a_non_streamed_response_does_not_depend_on_their_number() -> None:
    few, many = (best(partial(attribute, whole(n), "steps")) / n for n in (1_000, 4_000))
    sys.stdout.write(f"\nanswers sent whole: {1e6 * few:.0f} us each of 1,000, {1e6 * many:.0f} of 4,000\n")
    assert many < 1.6 * few
