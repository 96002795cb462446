"""A request about a job goes to the backend that has it."""

from tests.fakes.backend import Backend
from tests.proxy.relay.exchange.test_exchange import relay
from tests.proxy.relay.jobs.test_table import JOB, NEVER, VIDEOS, create, state


async def test_requests_about_a_job_go_to_its_backend() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, **NEVER) as client:
        for backend in (a, b):
            backend.answers[VIDEOS] = (503, b"busy")
        a.answers[VIDEOS] = state("queued")
        while (await create(client)).status_code != 200:
            pass
        a.answers[JOB] = state("in_progress")
        got = [await client.get(JOB) for _ in range(10)]
        content = [await client.get(f"{JOB}/content") for _ in range(4)]
        deleted = await client.delete(JOB)
    assert [answer.status_code for answer in got] == [200] * 10
    assert [answer.text for answer in content] == ["a"] * 4
    assert deleted.status_code == 200
    assert JOB not in b.seen
    assert f"{JOB}/content" not in b.seen


async def test_the_backend_of_a_job_of_another_worker_is_found() -> None:
    async with Backend("a") as a, Backend("b") as b, Backend("c") as c, relay(a, b, c, **NEVER) as client:
        for backend in (a, c):
            backend.answers[JOB] = (404, b'{"error":"no such video"}')
        b.answers[JOB] = state("in_progress")
        got = [await client.get(JOB) for _ in range(6)]
    assert [answer.status_code for answer in got] == [200] * 6
    assert b.seen[JOB] == 6
    assert a.seen.get(JOB, 0) + c.seen.get(JOB, 0) <= 2, "once found, it is known"


async def test_a_job_that_no_backend_has_is_not_found() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, **NEVER) as client:
        for backend in (a, b):
            backend.answers[JOB] = (404, b"from " + backend.name.encode())
        got = await client.get(JOB)
    assert got.status_code == 404
    assert got.text.startswith("from ")
    assert (a.seen[JOB], b.seen[JOB]) == (1, 1)


async def test_a_job_does_not_go_elsewhere_when_its_backend_is_away() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, **NEVER) as client:
        b.answers[VIDEOS] = (503, b"busy")
        a.answers[VIDEOS] = state("queued")
        while (await create(client)).status_code != 200:
            pass
        await a.down()
        assert (await client.get(JOB)).status_code == 502
    assert JOB not in b.seen
