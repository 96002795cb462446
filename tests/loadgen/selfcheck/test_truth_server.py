"""The server that is the truth has to be one."""

import time

import msgspec
import pytest

from loadgen.client.http_client import Client, Target
from loadgen.drive.attack import Attack
from loadgen.drive.pacer import OpenLoop
from loadgen.selfcheck.truth_server import ServerLog, Truth, TruthServer
from loadgen.workload.arrivals import Constant
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import Workload
from proxy.schema import DeviceAccount


async def test_tokens_are_never_sent_early_and_their_times_are_reported() -> None:
    async with TruthServer(Truth(0.02, 0.005, 6)) as server:
        client = Client(Target(server.url))
        work = Workload("chat", "truth", Lengths(Fixed(8), Fixed(6)))
        outcome = await Attack(client, work, OpenLoop(Constant(50.0), None, 5), 0, "t").run()
        told = msgspec.json.decode((await client.fetch("GET", "/truth"))[1], type=ServerLog)
        await client.close()
    assert len(told.late_ns) == 5 * 6
    assert min(told.late_ns) >= 0
    for record in outcome.records:
        served = told.served[record.id]
        assert record.sent_ns is not None
        assert record.first_ns is not None
        # On one machine's clock: sent, arrived, written, read.
        assert outcome.start_ns + record.sent_ns <= served.arrived_ns
        assert served.written_ns[0] - served.arrived_ns >= 20_000_000
        assert outcome.start_ns + record.first_ns >= served.written_ns[0]
        assert len(served.written_ns) == 6
        assert sum(record.counts) == record.output_tokens == 6


async def test_slots_queue_first_come_first_served() -> None:
    async with TruthServer(Truth(0.03, 0.001, 1, slots=1)) as server:
        client = Client(Target(server.url))
        work = Workload("chat", "truth", Lengths(Fixed(8), Fixed(1)))
        outcome = await Attack(client, work, OpenLoop(Constant(1000.0), None, 4), 0, "t").run()
        await client.close()
    first = [record.first_ns or 0 for record in outcome.records]
    assert first == sorted(first)
    # Each begins when the one before was due to end, so that a busy machine shifts none of them.
    assert first[3] - (outcome.records[0].sent_ns or 0) >= 4 * 30_000_000


async def test_known_power_models_and_unknown_paths() -> None:
    async with TruthServer(Truth(0.01, 0.001, 1)) as server:
        client = Client(Target(server.url))
        now = time.monotonic_ns()
        code, body = await client.fetch("GET", f"/energy/window?start_ns={now - 10**9}&end_ns={now}")
        account = msgspec.json.decode(body, type=dict[str, list[DeviceAccount]])["devices"][0]
        assert code == 200
        assert account.measured_joules == pytest.approx(100.0)
        assert (await client.fetch("GET", "/v1/models"))[0] == 200
        assert (await client.fetch("GET", "/elsewhere"))[0] == 404
        await client.close()


async def test_each_request_of_a_burst_has_its_own_id() -> None:
    async with TruthServer(Truth(0.02, 0.001, 1)) as server:
        client = Client(Target(server.url))
        work = Workload("chat", "truth", Lengths(Fixed(8), Fixed(1)))
        outcome = await Attack(client, work, OpenLoop(Constant(1e6), None, 20), 0, "t").run()
        told = msgspec.json.decode((await client.fetch("GET", "/truth"))[1], type=ServerLog)
        await client.close()
    assert set(told.served) == {record.id for record in outcome.records}
