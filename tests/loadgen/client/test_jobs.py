import pytest

from loadgen.client.http_client import Client, Target
from loadgen.client.jobs import POLL_S, JobResponse, job_state
from loadgen.drive.attack import Attack
from loadgen.drive.pacer import ClosedLoop
from loadgen.results.records import Record
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import Workload
from proxy.units import NS_PER_SECOND
from tests.fakes.video_server import VideoServer, video_server


async def driven(server: VideoServer) -> list[Record]:
    async with video_server(server) as running:
        client = Client(Target(running.url))
        work = Workload("videos", "film", Lengths(Fixed(3), Fixed(1)))
        outcome = await Attack(client, work, ClosedLoop(2, requests=4), 0, "v").run()
        await client.close()
    return outcome.records


async def test_a_job_is_polled_until_it_ends() -> None:
    server = VideoServer(questions=2)
    records = await driven(server)
    assert [record.error for record in records] == [None] * 4
    assert all((r.end_ns or 0) - r.scheduled_ns >= 2 * POLL_S * NS_PER_SECOND for r in records)
    assert all(form["model"] == "film" and len(form["prompt"].split()) == 3 for form in server.forms)
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize(
    ("server", "says"),
    [(VideoServer(1, "failed"), "ended as failed"), (VideoServer(lost=True), "HTTP 404 for the job")],
    ids=["failed", "lost"],
)
async def test_a_job_that_fails_is_a_failed_request(server: VideoServer, says: str) -> None:
    records = await driven(server)
    assert all(says in (record.error or "") for record in records)


def test_states() -> None:
    assert job_state(b'{"id": "a", "status": "in_progress"}') == ("a", "running")
    assert job_state(b'{"id": "a", "status": "completed"}') == ("a", "done")
    with pytest.raises(ValueError, match="not a job"):
        job_state(b"[]")
    answer = JobResponse()
    answer.feed(b'{"id": "a"', 1)
    answer.feed(b"}", 2)
    assert (answer.outcome(), answer.job) == (None, "a")
    broken = JobResponse()
    broken.feed(b"<html>", 1)
    assert "not a job" in (broken.outcome() or "")
