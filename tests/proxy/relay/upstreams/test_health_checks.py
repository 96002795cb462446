"""Health checks and learnt models, on real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec
import pytest

from proxy import config
from proxy.clock import now_ns
from proxy.relay.upstreams.balancer import Balancer
from proxy.relay.upstreams.connections import ConnectionPool
from proxy.relay.upstreams.health_checks import HealthChecks, get, models_of
from tests.fakes.backend import Backend
from tests.timing import PATIENCE_SECONDS

QUICK = config.RelayConfig(
    health_interval_seconds=0.02,
    health_timeout_seconds=PATIENCE_SECONDS,
    health_failures=2,
    health_successes=2,
    models_interval_seconds=0.02,
)


@contextlib.asynccontextmanager
async def checked(*backends: Backend, settings: config.RelayConfig = QUICK) -> AsyncIterator[Balancer]:
    """A balancer of these, and checks that run."""
    named = [config.Backend(backend.url, backend.name) for backend in backends]
    balancer = Balancer(named, settings, now_ns())
    pools = {slot: ConnectionPool(slot.backend, settings) for slot in balancer.slots}
    checks = HealthChecks(settings, balancer, pools.__getitem__)
    await checks.start()
    try:
        yield balancer
    finally:
        checks.close()
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.005)


async def test_one_that_is_gone_is_known_at_once_and_its_return_after_some_checks() -> None:
    async with Backend("a") as a, Backend("b") as b:
        await b.down()
        async with checked(a, b) as balancer:
            first, second = balancer.slots
            assert (first.health.state, second.health.state) == ("up", "down")
            assert "Connect" in (second.health.reason or "")
            await b.up()
            await until(lambda: second.health.state == "up")
            assert second.health.warm_ns > now_ns(), "it starts slowly"
            assert a.seen["/health"] >= 2


@pytest.mark.parametrize(
    ("status", "state"), [(200, "up"), (404, "up"), (401, "up"), (500, "down"), (503, "down")]
)
async def test_below_500_is_a_pass(status: int, state: str) -> None:
    async with Backend("a") as a, Backend("b") as b:
        b.answers["/health"] = (status, b"")
        async with checked(a, b) as balancer:
            assert balancer.slots[1].health.state == state
            if state == "down":
                assert balancer.slots[1].health.reason == f"/health answers {status}"


async def test_silence_is_a_failure() -> None:
    async with Backend("a") as a, Backend("b") as b:
        b.silent = True
        async with checked(a, b, settings=replace(QUICK, health_timeout_seconds=0.2)) as balancer:
            assert balancer.slots[1].health.reason == "no answer to /health within 0.2 s"


async def test_models_are_learnt_and_learnt_again() -> None:
    async with Backend("a", "m") as a, Backend("b", "n", "adapter") as b, checked(a, b) as balancer:
        assert [set(slot.models) for slot in balancer.slots] == [{"m"}, {"n", "adapter"}]
        a.serve("other")
        await until(lambda: set(balancer.slots[0].models) == {"other"})
        a.answers["/v1/models"] = (404, b"")
        await until(lambda: not balancer.slots[0].models)
        b.answers["/v1/models"] = (200, b'{"data": 3}')
        await until(lambda: not balancer.slots[1].models)


async def test_the_only_backend_and_checks_that_are_off_ask_nothing() -> None:
    async with Backend("a") as a, Backend("b") as b:
        async with checked(a) as balancer:
            assert balancer.slots[0].health.state == "up"
        async with checked(a, b, settings=replace(QUICK, health_checks=False)):
            assert not a.seen
            assert not b.seen


async def test_new_settings_may_end_checks_and_begin_them() -> None:
    async with Backend("a") as a, Backend("b") as b:
        named = [config.Backend(backend.url, backend.name) for backend in (a, b)]
        balancer = Balancer(named, QUICK, now_ns())
        pools = {slot: ConnectionPool(slot.backend, QUICK) for slot in balancer.slots}
        checks = HealthChecks(QUICK, balancer, pools.__getitem__)
        await b.down()
        await checks.start()
        states = [balancer.slots[1].health.state]
        checks.reconfigure(replace(QUICK, health_checks=False))
        states.append(balancer.slots[1].health.state)
        assert states == ["down", "up"]
        checks.reconfigure(QUICK)
        await until(lambda: balancer.slots[1].health.state == "down")
        checks.close()
        await asyncio.sleep(0)


async def test_a_get_gives_status_and_body_or_says_what_is_wrong() -> None:
    async with Backend("a") as a:
        a.answers["/long"] = (200, b"x" * (1 << 21))
        pool = ConnectionPool(config.Backend(a.url + "/base"), QUICK)
        assert await get(pool, "/x", PATIENCE_SECONDS) == (200, b"a")
        assert a.seen == {"/base/x": 1}
        a.answers["/base/long"] = (200, b"x" * (1 << 21))
        with pytest.raises(OSError, match="more than 1048576 bytes"):
            await get(pool, "/long", PATIENCE_SECONDS)
        a.silent = True
        with pytest.raises(TimeoutError):
            await get(pool, "/x", 0.05)
        await a.down()
        with pytest.raises(ConnectionError):
            await get(pool, "/x", PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("body", "names", "unread"),
    [
        (b'{"data":[{"id":"a"},{"id":7,"created":1}]}', ["a", "7"], 0),
        (b'{"data":[{"id":"a"},{"name":"b"},3,null,{"id":null},{"id":"c"}]}', ["a", "c"], 4),
        (b'{"data":[{"id":"a"},{"id":"b","top_p":NaN}]}', ["a", "b"], 0),
        (b'{"data":[{"id":"a"},{"id":"b","owner":"\\ud800"}]}', ["a", "b"], 0),
        (b'\xef\xbb\xbf{"data":[{"id":"a"}]}', ["a"], 0),
        (b'[{"id":"a"},{"id":"b"}]', ["a", "b"], 0),
        (b'{"data":["a","b"]}', ["a", "b"], 0),
        (b'{"data":null}', [], 0),
        (b"oops", [], 0),
    ],
)
def test_an_odd_entry_of_a_list_of_models_does_not_hide_the_others(
    body: bytes, names: list[str], unread: int
) -> None:
    found, count = models_of(body)
    assert (list(found), count) == (names, unread)
    assert all(isinstance(msgspec.json.decode(entry), dict) for entry in found.values())
