"""A request among several backends: where it goes, and where it goes instead."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from proxy import config
from proxy.config import Address, RelayConfig
from proxy.ipc import Closed, Opened
from proxy.relay.worker import Worker
from tests.fakes.backend import Backend
from tests.fakes.meter import FakeMeter
from tests.timing import PATIENCE_SECONDS

CHAT = "/v1/chat/completions"


@asynccontextmanager
async def relay(
    *backends: Backend, socket: str = "/nowhere", **settings: object
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a relay before these; no active checks unless asked for."""
    made = RelayConfig(
        listen=Address("127.0.0.1", 0),
        drain_timeout_seconds=0.5,
        # Kept connections stay, however long the machine stops between two requests of a test.
        **{"health_checks": False, "upstream_idle_timeout_seconds": PATIENCE_SECONDS, **settings},  # type: ignore[arg-type]
    )
    named = [config.Backend(b.url, b.name) for b in backends]
    worker = Worker(made, named, socket)
    await worker.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as client:
            yield client
    finally:
        await worker.close()


@pytest.fixture
async def meter(tmp_path: Path) -> AsyncIterator[FakeMeter]:
    async with FakeMeter(tmp_path) as made:
        yield made


async def test_the_length_of_the_prefix_seen_before_is_reported(meter: FakeMeter) -> None:
    turns = [{"role": "user", "content": "a question of some length " * 100}]
    async with Backend("a") as a, relay(a, socket=meter.socket) as client:
        for messages in (turns, [*turns, {"role": "user", "content": "more"}]):
            await client.post(CHAT, json={"model": "m", "messages": messages})
        await client.post(CHAT, json={"model": "m"})
        opened = [m for m in await meter.until(Opened, 3) if isinstance(m, Opened)]
    first, second, without = [(m.arrive.prompt_bytes, m.arrive.prefix_bytes) for m in opened]
    assert first[0] is not None
    assert first[0] > 2600
    assert first[1] == 0
    assert second[1] == 2560
    assert without == (None, None)


async def test_what_cannot_be_sent_to_one_is_sent_to_another(meter: FakeMeter) -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, socket=meter.socket) as client:
        await a.down()
        got = [await client.post(CHAT, json={"model": "m"}) for _ in range(8)]
        opened, closed = await meter.until(Opened, 8), await meter.until(Closed, 8)
    assert [answer.text for answer in got] == ["b"] * 8
    assert {m.arrive.backend for m in opened if isinstance(m, Opened)} == {"b"}
    assert len(opened) == len(closed) == 8, "one record a request"


async def test_a_number_that_no_record_holds_takes_no_other_record_with_it(meter: FakeMeter) -> None:
    async with Backend("a") as a, relay(a, socket=meter.socket) as client:
        for limit in (7, 2**70, -1):
            await client.post(CHAT, json={"model": "m", "max_tokens": limit})
        opened = await meter.until(Opened, 3)
    assert [m.max_tokens for m in opened if isinstance(m, Opened)] == [7, None, None]


async def test_what_records_keep_of_a_request_is_bounded(meter: FakeMeter) -> None:
    async with Backend("a") as a, relay(a, socket=meter.socket, tenant_header="x-team") as client:
        for length in (200, 201):
            given = {"x-request-id": "i" * length, "x-team": "t" * 10_000}
            got = await client.post(CHAT, json={"model": "m" * 10_000}, headers=given)
            assert (got.headers["x-request-id"] == "i" * 200) == (length == 200)
        opened = [m.arrive for m in await meter.until(Opened, 2) if isinstance(m, Opened)]
    assert [len(arrive.request) for arrive in opened] == [200, len("req-") + 32]
    assert {(len(arrive.tenant or ""), len(arrive.model or "")) for arrive in opened} == {(500, 500)}


async def test_a_streamed_upload_goes_to_the_other_one_too() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000
            await asyncio.sleep(0)

    async with Backend("a") as a, Backend("b") as b, relay(a, b) as client:
        await a.down()
        got = [
            await client.post("/upload", content=body(), headers={"content-length": "3000"}) for _ in range(2)
        ]
    assert [answer.text for answer in got] == ["b", "b"]


async def test_a_kept_connection_that_had_ended_is_tried_anew_then_elsewhere(meter: FakeMeter) -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, socket=meter.socket) as client:
        for _ in range(2):
            await client.post(CHAT, json={"model": "m"})
        await a.down()
        got = [await client.post(CHAT, json={"model": "m"}) for _ in range(4)]
    assert [answer.text for answer in got] == ["b"] * 4


async def test_all_gone_is_the_last_ones_error_then_503_with_the_time_to_wait() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, eject_seconds=3.0) as client:
        await a.down()
        await b.down()
        got = [await client.post(CHAT, json={"model": "m"}) for _ in range(4)]
    assert [answer.status_code for answer in got] == [502, 502, 502, 503]
    assert [answer.json()["error"]["code"] for answer in got[2:]] == ["backend_unreachable", "no_backend"]
    assert got[3].headers["retry-after"] == "3"
    assert "retry-after" not in got[0].headers


async def test_a_server_that_fails_fast_does_not_get_all_requests() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b) as client:
        a.answers[CHAT] = (500, b"engine is dead")
        got = [await client.post(CHAT, json={"model": "m"}) for _ in range(12)]
    assert Counter((answer.status_code, answer.text) for answer in got) == {
        (500, "engine is dead"): 3,
        (200, "b"): 9,
    }


async def test_a_chunked_request_finds_the_backend_of_its_model() -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in (b'{"stream":true,', b'"model":', b'"n"}'):
            yield piece
            await asyncio.sleep(0)

    async with Backend("a", "m") as a, Backend("b", "n") as b, relay(a, b, health_checks=True) as client:
        got = [await client.post(CHAT, content=body()) for _ in range(4)]
    assert [answer.text for answer in got] == ["b"] * 4
    assert b.bodies.count(b'{"stream_options":{"include_usage":true},"stream":true,"model":"n"}') == 4


async def test_a_chunked_request_over_the_limit_is_a_413() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":"%b"}' % (b"m" * 1000)

    async with Backend("a") as a, relay(a, max_body_bytes=1000) as client:
        got = await client.post(CHAT, content=body())
    assert got.status_code == 413
    assert a.seen == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/anything", 200),
        ("HEAD", "/v1/anything", 200),
        ("PUT", "/v1/anything", 200),
        ("DELETE", "/v1/anything", 200),
        ("POST", CHAT, 200),
        ("POST", "/v1/rerank", 200),
        ("POST", "/v1/videos", 502),
        ("POST", "/v1/anything", 502),
        ("PATCH", "/v1/anything", 502),
    ],
)
async def test_a_kept_connection_that_ends_without_an_answer(method: str, path: str, status: int) -> None:
    """It is tried anew if that is safe although the backend has read the request."""
    async with Backend("a") as a, relay(a) as client:
        await client.get("/v1/anything")
        a.drops = 1
        got = await client.request(method, path, content=b"{}")
    assert got.status_code == status


async def test_an_idempotent_request_goes_elsewhere_when_a_backend_dies_of_it() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b) as client:
        a.drops = b.drops = 1
        got = [await client.get("/x"), await client.get("/x"), await client.post(CHAT, json={})]
    assert [answer.status_code for answer in got] == [502, 200, 200]


async def test_a_kept_connection_is_not_used_for_longer_than_its_time() -> None:
    async with Backend("a") as a, relay(a, upstream_idle_timeout_seconds=1e-9) as client:
        await client.get("/x")
        a.drops = 0
        got = await client.post("/v1/anything", content=b"x")
    assert got.status_code == 200


async def test_a_model_finds_the_backend_that_lists_it() -> None:
    async with (
        Backend("a", "m") as a,
        Backend("b", "n") as b,
        relay(a, b, health_checks=True, health_path="/health") as client,
    ):
        got = Counter([(await client.post(CHAT, json={"model": model})).text for model in "mnmnnn"])
    assert got == {"a": 2, "b": 4}
    assert (a.seen[CHAT], b.seen[CHAT]) == (2, 4)


async def test_sessions_of_a_lost_backend_stay_together_at_another() -> None:
    async def where(client: httpx.AsyncClient) -> dict[str, str]:
        return {
            u: (await client.post(CHAT, json={"model": "m", "user": u})).text for u in map(str, range(24))
        }

    async with (
        Backend("a") as a,
        Backend("b") as b,
        Backend("c") as c,
        relay(a, b, c, sticky="session", eject_failures=1000) as client,
    ):
        before = await where(client)
        await a.down()
        after, later = await where(client), await where(client)
    assert after == later, "each goes to the next on the ring, whoever has fewer requests"
    assert set(after.values()) == {"b", "c"}
    assert all(after[name] == home for name, home in before.items() if home != "a")


async def test_a_session_stays_where_it_was() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b, sticky="session") as client:
        where: dict[str, str] = {}
        for _ in range(3):
            for session in map(str, range(12)):
                headers = {"x-session-id": session, "content-type": "application/json"}
                got = await client.post(CHAT, content=json.dumps({"model": "m"}), headers=headers)
                assert where.setdefault(session, got.text) == got.text
    assert set(where.values()) == {"a", "b"}


async def test_models_of_all_backends_are_one_list_in_their_own_words() -> None:
    async with (
        Backend("a", "m", "both") as a,
        Backend("b", "both", "n") as b,
        relay(a, b, health_checks=True) as client,
    ):
        for _ in range(2):
            answer = await client.get("/v1/models", headers={"x-request-id": "mine"})
            assert [model["id"] for model in answer.json()["data"]] == ["m", "both", "n"]
            assert answer.headers["x-request-id"] == "mine"


async def test_a_list_that_all_backends_give_passes_as_it_is() -> None:
    async with Backend("a", "m") as a, Backend("b", "m") as b, relay(a, b, health_checks=True) as client:
        before = a.seen["/v1/models"] + b.seen["/v1/models"]
        assert (await client.get("/v1/models")).content == a.answers["/v1/models"][1]
        assert a.seen["/v1/models"] + b.seen["/v1/models"] > before
