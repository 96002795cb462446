"""A backend that refuses to be asked for usage is not asked, and the client does not notice."""

import json
from pathlib import Path

import pytest

from proxy.ipc import Closed, Opened
from proxy.relay.exchange.held_error import HeldError, may_refuse
from proxy.relay.http.framing import Fixed
from proxy.relay.http.heads import ResponseHead
from tests.fakes.backend import Backend
from tests.fakes.meter import FakeMeter
from tests.proxy.relay.exchange.test_exchange import CHAT, relay

STREAM = {"model": "m", "stream": True}
REFUSES = b"stream_options"


def asked(backend: Backend) -> list[bool]:
    return [REFUSES in body for body in backend.bodies]


async def test_a_refused_request_is_sent_again_as_it_was_and_the_backend_is_remembered(
    tmp_path: Path,
) -> None:
    async with (
        FakeMeter(tmp_path) as meter,
        Backend("a") as a,
        relay(a, socket=meter.socket) as client,
    ):
        a.refuses = REFUSES
        content = b'{"model": "m", "stream":true}'
        got = [await client.post(CHAT, content=content) for _ in range(3)]
        opened, closed = await meter.until(Opened, 3), await meter.until(Closed, 3)
    assert [(answer.status_code, answer.text) for answer in got] == [(200, "a")] * 3
    assert asked(a) == [True, False, False, False]
    assert a.bodies[1:] == [content] * 3
    assert len(opened) == len(closed) == 3, "one record a request"


async def test_each_backend_is_remembered_for_itself() -> None:
    async with Backend("a") as a, Backend("b") as b, relay(a, b) as client:
        a.refuses = REFUSES
        got = [await client.post(CHAT, json=STREAM) for _ in range(6)]
    assert {answer.status_code for answer in got} == {200}
    assert asked(a) == [True, False, False, False]
    assert asked(b) == [True, True, True]


async def test_an_error_about_something_else_passes_and_changes_nothing() -> None:
    async with Backend("a") as a, relay(a) as client:
        a.answers[CHAT] = (400, b"messages: Field required" + b" " * 200_000)
        got = [await client.post(CHAT, json=STREAM) for _ in range(2)]
        a.answers[CHAT] = (422, b"")
        got.append(await client.post(CHAT, json=STREAM))
    assert [answer.status_code for answer in got] == [400, 400, 422]
    assert len(got[0].content) == len("messages: Field required") + 200_000
    assert asked(a) == [True] * 3


async def test_an_error_that_only_quotes_the_request_is_not_remembered() -> None:
    async with Backend("a") as a, relay(a) as client:
        a.refuses = b'"bad"'
        a.answers[CHAT] = (400, b"in stream_options or elsewhere")
        got = await client.post(CHAT, json=STREAM)
        assert got.status_code == 400
        del a.answers[CHAT]
        await client.post(CHAT, json=STREAM)
    assert asked(a) == [True, False, True]


async def test_a_client_that_asks_itself_gets_the_refusal() -> None:
    async with Backend("a") as a, relay(a) as client:
        a.refuses = REFUSES
        got = await client.post(CHAT, json={**STREAM, "stream_options": {"include_usage": True}})
    assert got.status_code == 422
    assert len(a.bodies) == 1


async def test_usage_keep_changes_no_body() -> None:
    content = json.dumps({**STREAM, "stream_options": None}).encode()
    async with Backend("a") as a, relay(a, usage="keep") as client:
        await client.post(CHAT, content=content)
    assert a.bodies == [content]


def test_only_an_error_about_fields_is_held() -> None:
    assert [status for status in (200, 400, 401, 404, 422, 429, 500) if may_refuse(status)] == [400, 422]


@pytest.mark.parametrize(("size", "full"), [(1, False), (100_000, True)])
def test_a_long_error_is_not_held(size: int, full: bool) -> None:
    held = HeldError(ResponseHead(400, b"", [], {}, keep_alive=True, body=Fixed(size)))
    held.add(b"x" * size, [b"x" * size])
    assert held.full == full
    assert not held.refuses_usage()
