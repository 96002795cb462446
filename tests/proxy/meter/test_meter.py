import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.clock import now_ns
from proxy.config import ConfigError, MeterConfig
from proxy.core.events import Arrive, End, Event, Header
from proxy.core.timeline import TimelineReader
from proxy.exporters.base import Finished
from proxy.ipc import Closed, EnergyQuery, JobReport, Opened
from proxy.meter.intake import Connection
from proxy.meter.meter import ENERGY_FIELDS, Meter, put_aside
from proxy.schema import Unknown
from proxy.timeline_file import read_blocks
from proxy.units import NS_PER_MS, NS_PER_SECOND
from tests.fakes.metered import WATTS, a_meter, begin, finish, samples, story


class Kept:
    name = "kept"

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.closed = False

    def export(self, finished: Finished) -> None:
        self.finished.append(finished)

    def close(self) -> None:
        self.closed = True


def told(meter: Meter, request: str, wait_ns: int = 0) -> Any:
    return asyncio.run(told_async(meter, request, wait_ns))


async def told_async(meter: Meter, request: str, wait_ns: int = 0) -> Any:
    return msgspec.json.decode(await meter.reply(Connection(1), EnergyQuery(1, request, now_ns(), wait_ns)))


def test_a_request_becomes_one_final_record_for_every_exporter() -> None:
    kept = Kept()
    meter, relay = a_meter(kept)
    start, end = story(meter, relay, "a")
    (finished,) = kept.finished
    record = finished.record
    assert (record.request_id, record.final, record.unknown, record.source) == ("a", True, None, "simulated")
    assert record.joules == pytest.approx(WATTS * 1.0, rel=1e-6)
    assert record.start_unix_ns == meter.anchor.unix(start)
    assert (record.duration_s, record.ttft_s) == (1.0, 0.1)
    assert finished.end.end.t_ns == end
    assert meter.record("a") == record


def test_running_requests_have_provisional_joules() -> None:
    meter, relay = a_meter()
    now = now_ns()
    samples(meter, now - 3 * NS_PER_SECOND, now)
    begin(meter, relay, "a", now - 2 * NS_PER_SECOND)
    meter.tick(0)
    meter.tick(now + NS_PER_SECOND)
    record = meter.record("a")
    assert record is not None
    assert not record.final
    assert record.joules is not None
    assert record.joules == pytest.approx(WATTS * 2.0, rel=0.2)
    assert meter.record("nobody") is None


def test_the_answer_holds_the_energy_fields() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a", "b")
    answer = told(meter, "a")
    assert tuple(answer) == ENERGY_FIELDS
    assert answer["joules"] == pytest.approx(WATTS / 2, rel=1e-6)
    assert answer["final"] is True
    assert told(meter, "nobody") == {"joules": None, "final": False, "unknown": "not_known"}


async def test_who_waits_is_told_when_it_is_final() -> None:
    meter, relay = a_meter()
    now = now_ns()
    samples(meter, now - 3 * NS_PER_SECOND, now)
    begin(meter, relay, "a", now - 2 * NS_PER_SECOND)
    meter.tick(0)
    meter.tick(now)
    finish(meter, relay, "a", now - NS_PER_SECOND)
    waiting = [asyncio.ensure_future(told_async(meter, "a", 5 * NS_PER_SECOND)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(w.done() for w in waiting)
    samples(meter, now, now + NS_PER_SECOND)
    meter.tick(now + 2 * NS_PER_SECOND)
    assert {(await w)["final"] for w in waiting} == {True}


async def test_a_response_is_not_held_for_other_requests_that_run() -> None:
    meter, relay = a_meter(config=MeterConfig(policy="steps"))
    now = now_ns()
    samples(meter, now - 3 * NS_PER_SECOND, now)
    begin(meter, relay, "a", now - 2 * NS_PER_SECOND)
    begin(meter, relay, "other", now - 2 * NS_PER_SECOND, key=2)
    meter.tick(0)
    meter.tick(now)
    finish(meter, relay, "a", now - NS_PER_SECOND)
    waiting = asyncio.ensure_future(told_async(meter, "a", 20 * NS_PER_SECOND))
    record = asyncio.ensure_future(meter.until_final("a", 20.0))
    await asyncio.sleep(0)
    samples(meter, now, now + NS_PER_SECOND)
    meter.tick(now + 2 * NS_PER_SECOND)
    answer = await waiting
    assert answer["final"] is False
    assert answer["joules"] > 0
    assert (await told_async(meter, "a", 20 * NS_PER_SECOND))["final"] is False
    await asyncio.sleep(0)
    assert not record.done()
    finish(meter, relay, "other", now + NS_PER_SECOND, key=2)
    samples(meter, now + NS_PER_SECOND, now + 3 * NS_PER_SECOND)
    meter.tick(now + 4 * NS_PER_SECOND)
    await record
    assert (await told_async(meter, "a"))["final"] is True


async def test_a_wait_ends_in_time_and_leaves_nothing_behind() -> None:
    meter, relay = a_meter()
    now = now_ns()
    begin(meter, relay, "a", now - NS_PER_SECOND)
    meter.tick(0)
    meter.tick(now)
    answer = await told_async(meter, "a", 20 * NS_PER_MS)
    assert answer["final"] is False
    assert meter._measuring == {}


def test_without_a_source_the_record_says_so() -> None:
    meter, relay = a_meter(source=None)
    story(meter, relay, "a")
    record = meter.record("a")
    assert record is not None
    assert (record.joules, record.unknown, record.final) == (None, "no_energy_source", True)
    assert record.output_tokens == 5


def test_a_request_older_than_the_meter_is_known_in_part_and_says_so() -> None:
    kept = Kept()
    meter, relay = a_meter(kept)
    now = now_ns()
    begin(meter, relay, "kept by the relay", now - 3 * NS_PER_SECOND)
    samples(meter, now - 2 * NS_PER_SECOND, now)
    finish(meter, relay, "kept by the relay", now - NS_PER_SECOND)
    meter.receive(relay, [Closed(7, End(now - NS_PER_SECOND, "told to one that died", 200))])
    meter.tick(0)
    meter.tick(now + NS_PER_SECOND)
    meter.settle()
    reasons = {f.record.request_id: f.record.unknown for f in kept.finished}
    assert reasons == {
        "kept by the relay": "before_first_sample",
        "told to one that died": Unknown.BEGINNING_NOT_SEEN,
    }
    partly = next(f.record for f in kept.finished if f.record.unknown == "before_first_sample")
    assert partly.joules_high is None
    assert partly.duration_s == 2.0


def test_at_the_end_every_record_is_final_and_exporters_are_closed() -> None:
    kept = Kept()
    meter, relay = a_meter(kept)
    now = now_ns()
    samples(meter, now - 2 * NS_PER_SECOND, now)
    begin(meter, relay, "a", now - NS_PER_SECOND)
    finish(meter, relay, "a", now)
    meter.settle()
    meter.close()
    assert [f.record.final for f in kept.finished] == [True]
    assert kept.closed


def test_finished_records_are_bounded() -> None:
    meter, relay = a_meter(config=MeterConfig(policy="overlap", keep_records=50))
    story(meter, relay, *(f"r{n}" for n in range(200)))
    assert len(list(meter.ledger.records())) == 50
    assert len(meter.ledger._entries) == 50
    assert meter.attributor._tracks == {}


def test_accounts_tell_the_age_of_their_reading() -> None:
    meter, relay = a_meter()
    story(meter, relay, "a")
    (account,) = meter.accounts(meter.attributor.accounts())
    assert account.sample_age_s is not None
    assert 0 <= account.sample_age_s < 5


def timeline(path: Path) -> list[Event]:
    return [event for block in read_blocks(path, TimelineReader()) for event in block]


def test_the_timeline_is_recorded_and_an_older_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.zst"
    for name in ("first", "second", "third"):
        meter, relay = a_meter(config=MeterConfig(policy="overlap", record=str(path)))
        story(meter, relay, name)
        meter.settle()
        meter.close()
    files = [path.with_name(name) for name in ("t-1.jsonl.zst", "t-2.jsonl.zst", "t.jsonl.zst")]
    events = [timeline(file) for file in files]
    assert [type(found[0]) for found in events] == [Header] * 3
    names = [[e.request for e in found if isinstance(e, Arrive)] for found in events]
    assert names == [["first"], ["second"], ["third"]]


def test_an_empty_file_and_a_device_are_not_put_aside(tmp_path: Path) -> None:
    empty = tmp_path / "t"
    empty.touch()
    put_aside(empty)
    put_aside(Path("/dev/null"))
    put_aside(tmp_path / "absent")
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_a_timeline_that_cannot_be_written_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"record: .*nowhere.* cannot be written: No such file"):
        a_meter(config=MeterConfig(record=str(tmp_path / "nowhere" / "t.jsonl")))


def test_a_full_disk_ends_the_recording_not_the_measuring(caplog: pytest.LogCaptureFixture) -> None:
    meter, relay = a_meter(config=MeterConfig(policy="overlap", record="/dev/full"))
    story(meter, relay, "a")
    record = meter.record("a")
    assert record is not None
    assert record.joules == pytest.approx(WATTS, rel=1e-6)
    assert "No space left" in caplog.text
    meter.settle()
    meter.close()


def test_an_id_used_again_before_its_first_request_is_final_has_two_records() -> None:
    kept = Kept()
    meter, relay = a_meter(kept)
    end = now_ns()
    start = end - 8 * NS_PER_SECOND
    samples(meter, start - NS_PER_SECOND, end + NS_PER_SECOND)
    for key, (after, seconds) in enumerate(((0, 2), (2, 4)), 1):
        begun = start + after * NS_PER_SECOND
        begin(meter, relay, "again", begun, key)
        finish(meter, relay, "again", begun + seconds * NS_PER_SECOND, key)
    meter.tick(0)
    meter.tick(end + 2 * NS_PER_SECOND)
    meter.settle()
    records = [f.record for f in kept.finished]
    assert [(r.request_id, r.duration_s) for r in records] == [("again", 2.0), ("again~1.2", 4.0)]
    assert [r.joules for r in records] == pytest.approx([2.0 * WATTS, 4.0 * WATTS])
    assert meter.intake.newest("again") == "again~1.2"


def test_a_job_that_its_relay_follows_has_provisional_joules_from_the_begin_of_its_work() -> None:
    meter, relay = a_meter()
    now = now_ns()
    samples(meter, now - 3 * NS_PER_SECOND, now)
    arrive = Arrive(now - 2 * NS_PER_SECOND, "v", "videos", devices=("gpu0",))
    meter.receive(relay, [Opened(1, arrive)])
    meter.tick(0)
    meter.tick(now + NS_PER_SECOND)
    record = meter.record("v")
    assert record is not None
    assert (record.joules, record.unknown) == (None, "job_not_tracked")
    meter.receive(relay, [JobReport(1, now + NS_PER_SECOND, arrive.t_ns)])
    meter.tick(now + 2 * NS_PER_SECOND)
    record = meter.record("v")
    assert record is not None
    assert record.joules is not None
    assert record.joules > 0.0
    assert (record.unknown, record.final) == (None, False)
