"""The attack against servers of known truth and servers that fail."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from loadgen.client.http_client import Client, Target
from loadgen.config.slo import parse_slo
from loadgen.config.spec import Spec
from loadgen.drive.attack import Attack
from loadgen.drive.pacer import Capped, ClosedLoop, OpenLoop, Pacer, duration_ns, schedule_ns
from loadgen.measure.summary import Measured, summarize
from loadgen.measure.window import Window
from loadgen.results.records import Record
from loadgen.run.session import verdict
from loadgen.selfcheck.truth_server import Truth, TruthServer
from loadgen.workload.arrivals import Constant, Renewal
from loadgen.workload.datasets import Item
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import Workload
from proxy.clock import now_ns
from proxy.units import NS_PER_SECOND
from tests.timing import PATIENCE_SECONDS

WORK = Workload("chat", "truth", Lengths(Fixed(8), Fixed(3)))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TruthServer(Truth(0.02, 0.002, 3)) as server:
        made = Client(Target(server.url))
        yield made
        await made.close()


def attack(client: Client, pacer: Pacer, **changes: float) -> Attack:
    return Attack(client, WORK, pacer, 3, "a", drain_s=changes.get("drain_s", 5.0))


async def test_an_open_loop_sends_the_schedule_itself(client: Client) -> None:
    pacer = OpenLoop(Renewal(200.0, 1.0, 0), duration_ns(0.3))
    outcome = await attack(client, pacer).run()
    assert [r.scheduled_ns for r in outcome.records] == schedule_ns(pacer)
    assert outcome.sending_end_ns == 300_000_000
    for record in outcome.records:
        assert record.ok
        assert record.scheduled_ns <= record.dispatched_ns <= (record.sent_ns or 0)
        assert (record.sent_ns or 0) + 20_000_000 <= (record.first_ns or 0) <= (record.end_ns or 0)
    assert [r.id for r in outcome.records] == [f"a-{i}" for i in range(len(outcome.records))]


async def test_the_same_seed_sends_the_same_bytes_at_the_same_times(client: Client) -> None:
    pacers = [OpenLoop(Renewal(100.0, 1.0, 0), duration_ns(0.1)) for _ in range(2)]
    runs = [await attack(client, pacer).run() for pacer in pacers]
    assert runs[0].records
    a, b = ([(r.index, r.id, r.scheduled_ns, r.output_tokens) for r in run.records] for run in runs)
    assert a == b


async def test_a_closed_loop_keeps_its_level(client: Client) -> None:
    one = attack(client, ClosedLoop(4, None, 12))
    outcome = await one.run()
    edges = sorted(
        [(r.sent_ns or 0, 1) for r in outcome.records] + [(r.end_ns or 0, -1) for r in outcome.records]
    )
    level = peak = 0
    for _, change in edges:
        level += change
        peak = max(peak, level)
    assert (peak, len(outcome.records), one.in_flight) == (4, 12, 0)


async def test_a_cap_shows_in_the_wait_from_scheduled(client: Client) -> None:
    pacer = Capped(OpenLoop(Constant(1000.0), None, 8), 1)
    outcome = await attack(client, pacer).run()
    assert pacer.bound > 0
    last = outcome.records[-1]
    assert last.scheduled_ns == 7_000_000
    assert (last.sent_ns or 0) > 7 * 20_000_000


async def test_a_request_without_an_end_fails_with_its_reason(stuck: Client) -> None:
    outcome = await attack(stuck, OpenLoop(Constant(100.0), None, 2), drain_s=0.001).run()
    assert {r.error for r in outcome.records} == {"not ended 0.001 s after the last"}
    assert all(r.end_ns is None for r in outcome.records)


@pytest.fixture
async def stuck() -> AsyncIterator[Client]:
    """Yield a client of a server that reads requests and never responds."""
    hung_up: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung_up.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    made = Client(Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    yield made
    await made.close()
    server.close()


async def test_a_request_that_takes_too_long_fails_and_the_next_is_sent(stuck: Client) -> None:
    one = attack(stuck, ClosedLoop(2, None, 4))
    one.timeout_s = 0.1
    outcome = await one.run()
    assert [r.error for r in outcome.records] == ["no complete response within 0.1 s (--request-timeout)"] * 4
    assert all((r.end_ns or 0) >= r.dispatched_ns + 100_000_000 for r in outcome.records)
    assert not outcome.interrupted


async def test_a_request_within_its_timeout_is_not_abandoned(client: Client) -> None:
    one = attack(client, ClosedLoop(2, None, 4))
    one.timeout_s, one.silence_s = 30.0, 30.0
    assert all(r.ok for r in (await one.run()).records)


async def test_a_point_without_a_time_limit_ends_when_the_server_is_silent(stuck: Client) -> None:
    for pacer in (ClosedLoop(2, None, 6), Capped(OpenLoop(Constant(1000.0), None, 6), 2)):
        one = attack(stuck, pacer)
        one.silence_s = 0.1
        outcome = await one.run()
        assert {r.error for r in outcome.records} == {"the server sent nothing for 0.1 s"}
        assert len(outcome.records) == 2
        assert outcome.notes == ("ended early, with 2 requests in flight: the server sent nothing for 0.1 s",)
        window = Window(0, outcome.sending_end_ns)
        point = summarize(Measured(2, None, outcome.records, window), parse_slo("1s"))
        assert point.failed == 2
        assert not point.slo_met


async def test_connecting_counts_as_part_of_the_time_of_a_request() -> None:
    # A listening socket whose queue is full: the handshake of the next connection is not answered.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        client = Client(Target(f"http://127.0.0.1:{full.getsockname()[1]}"))
        two = attack(client, ClosedLoop(1, None, 2))
        two.timeout_s = 0.1
        outcome = await two.run()
        await client.close()
    assert [r.error for r in outcome.records] == ["no complete response within 0.1 s (--request-timeout)"] * 2


async def test_an_interrupt_keeps_the_records_so_far() -> None:
    def interrupt(record: Record) -> None:
        if record.ok:
            one.interrupt()

    async with TruthServer(Truth(0.02, 0.002, 3, slots=1)) as server:  # one at a time: the others wait
        client = Client(Target(server.url))
        one = Attack(client, WORK, ClosedLoop(8, duration_ns(60.0), None), 3, "a", ended_hook=interrupt)
        outcome = await one.run()
        await client.close()
    assert outcome.interrupted
    assert outcome.records[0].ok
    assert {record.error for record in outcome.records} == {None, "interrupted"}


async def test_a_generator_that_cannot_sustain_the_rate_is_reported(client: Client) -> None:
    def busy(record: Record) -> None:
        began = time.monotonic_ns()
        while record.ok and time.monotonic_ns() < began + 25_000_000:
            pass

    pacer = OpenLoop(Constant(100.0), duration_ns(0.4))
    one = Attack(client, WORK, pacer, 0, "a", ended_hook=busy)
    outcome = await one.run()
    window = Window(0, outcome.sending_end_ns)
    point = summarize(Measured(None, 100.0, outcome.records, window, lags_ns=outcome.lags_ns), ())
    assert point.generator_bound
    assert any(note.startswith("generator-bound: ") for note in point.notes)
    spec = Spec(
        command="run", mode="rate", levels=(100.0,), url="http://host", admin_url="http://host", slo="1ms"
    )
    assert verdict(spec, [point], None, interrupted=False) == "generator-bound"


async def test_no_server_is_a_failure_of_each_request() -> None:
    client = Client(Target("http://127.0.0.1:1"))
    outcome = await attack(client, OpenLoop(Constant(1000.0), None, 3)).run()
    assert [r.status for r in outcome.records] == [None] * 3
    assert all("cannot connect" in (r.error or "") for r in outcome.records)


async def test_http_errors_are_failures_with_their_status(client: Client) -> None:
    work = Workload("embeddings", "truth", Lengths(Fixed(8), Fixed(3)))
    outcome = await Attack(client, work, OpenLoop(Constant(1000.0), None, 2), 0, "a").run()
    assert {(r.status, r.error) for r in outcome.records} == {(404, "HTTP 404")}


async def test_an_attack_interrupted_before_it_starts_has_done_nothing(
    client: Client,
) -> None:
    one = attack(client, OpenLoop(Constant(10.0), duration_ns(1.0)))
    running = asyncio.ensure_future(one.run(now_ns() + 10 * NS_PER_SECOND))
    await asyncio.sleep(0)
    one.interrupt()
    outcome = await running
    assert (outcome.records, outcome.interrupted, outcome.end_ns) == ([], True, 1)
    assert 0.0 <= outcome.cpu_share <= 1.5


@pytest.mark.parametrize(
    "pacer",
    [
        ClosedLoop(2, duration_ns(0.1)),
        Capped(OpenLoop(Constant(50.0), duration_ns(0.1)), 2, duration_ns(0.05) or 0),
    ],
)
async def test_a_server_that_never_answers_does_not_hold_the_point_beyond_its_time(pacer: Pacer) -> None:
    async with TruthServer(Truth(60.0, 0.002, 3)) as server:
        client = Client(Target(server.url))
        outcome = await asyncio.wait_for(attack(client, pacer, drain_s=0.05).run(), PATIENCE_SECONDS)
        await client.close()
    assert [r.error for r in outcome.records] == ["not ended 0.05 s after the last"] * 2


async def test_a_request_that_cannot_be_made_ends_the_point_with_its_reason(client: Client) -> None:
    good, bad = Item([{"role": "user", "content": "a"}]), Item([{"role": "user", "content": 7}])
    rows = [good] * 9 + [bad]
    broken = Workload("completions", "truth", Lengths(Fixed(8), Fixed(3)), items=rows)
    one = Attack(client, broken, OpenLoop(Constant(100.0), duration_ns(60.0)), 3, "a")
    with pytest.raises(TypeError, match="not iterable"):
        await asyncio.wait_for(one.run(), PATIENCE_SECONDS)


async def test_sending_behind_schedule_does_not_starve_the_event_loop(client: Client) -> None:
    one = attack(client, OpenLoop(Constant(1e7), duration_ns(60.0)), drain_s=0.01)
    asyncio.get_running_loop().call_later(0.2, one.interrupt)
    assert (await asyncio.wait_for(one.run(), PATIENCE_SECONDS)).interrupted
