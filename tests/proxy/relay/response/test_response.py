"""Responses of the engines' own APIs: passed on unchanged, their tokens reported as they come."""

import gzip

import httpx
import pytest

from proxy.ipc import Chunk, Closed, Opened
from tests.fakes.meter import FakeMeter
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.proxy.relay.test_worker import chunked, meter, relay, whole

__all__ = ["meter"]  # a fixture
LINE = b'{"model":"m","message":{"role":"assistant","content":"a"},"done":false}\n'
LAST = b'{"model":"m","message":{"content":""},"done":true,"prompt_eval_count":7,"eval_count":3}\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("energy", ["off", "on"])
@pytest.mark.parametrize("compressed", [False, True])
async def test_json_lines_are_tokens_as_they_come(meter: FakeMeter, energy: str, compressed: bool) -> None:
    lines = (LINE, LINE[:9], LINE[9:] + LINE, LAST)
    sent = (gzip.compress(b"".join(lines)),) if compressed else lines
    head = HEAD + (b"Content-Encoding: gzip\r\n\r\n" if compressed else b"\r\n")
    async with (
        RawUpstream(answer(head, *chunked(*sent))) as backend,
        relay(backend.url, meter.socket) as url,
        httpx.AsyncClient() as client,
    ):
        got = await client.post(f"{url}/api/chat", json={"model": "m"}, headers={"x-energy": energy})
        (opened,), chunks, (closed,) = (
            await meter.until(Opened),
            await meter.until(Chunk, 3),
            await meter.until(Closed),
        )
    assert got.content == b"".join(lines)
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert opened.arrive.stream, "the API streams unless the request says otherwise"
    assert [one.tokens for one in chunks if isinstance(one, Chunk)] == [1, 1, 1]
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (7, 3)


async def test_counts_in_headers_are_read(meter: FakeMeter) -> None:
    body = whole(b'{"generated_text":"a"}').replace(
        b"\r\n", b"\r\nx-prompt-tokens: 5\r\nx-generated-tokens: 3\r\n", 1
    )
    async with (
        RawUpstream(answer(body)) as backend,
        relay(backend.url, meter.socket) as url,
        httpx.AsyncClient() as client,
    ):
        await client.post(f"{url}/generate", json={"inputs": "x"})
        (closed,) = await meter.until(Closed)
    assert isinstance(closed, Closed)
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (5, 3)
