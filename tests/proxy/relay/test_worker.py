"""The relay on real sockets: bytes, streams, cancellation, faults, energy in the answer."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from proxy.config import Address, Backend, RelayConfig
from proxy.ipc import Chunk, Closed, Opened
from proxy.relay.response import response as response_module
from proxy.relay.worker import Worker
from proxy.zstd import compress
from tests.fakes.certificates import certificates
from tests.fakes.ipv6 import has_ipv6
from tests.fakes.meter import FakeMeter
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.timing import PATIENCE_SECONDS

CHAT = "/v1/chat/completions"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ROLE = b'data: {"id":"c1","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
JSON = b'{"id":"c2","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


def chunked(*pieces: bytes, end: bool = True) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(p), p) for p in pieces] + ([b"0\r\n\r\n"] if end else [])


def whole(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


@asynccontextmanager
async def relay(url: str, socket: str = "/nowhere") -> AsyncIterator[str]:
    worker = Worker(
        RelayConfig(listen=Address("127.0.0.1", 0), drain_timeout_seconds=1.0), [Backend(url, "b")], socket
    )
    await worker.start()
    try:
        yield f"http://127.0.0.1:{worker.port}"
    finally:
        await worker.close()


@pytest.fixture
async def meter(tmp_path: Path) -> AsyncIterator[FakeMeter]:
    async with FakeMeter(tmp_path) as made:
        yield made


async def post(url: str, body: dict[str, object], headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(url + CHAT, json=body, headers=headers)


async def test_any_method_path_and_body_passes() -> None:
    lines = (b"HTTP/1.1 207 Odd", b"X-Kept: a", b"X-Kept: b", b"Connection: X-Gone", b"X-Gone: 1")
    head = b"\r\n".join((*lines, b"Content-Length: 3", b"", b""))
    async with (
        RawUpstream(answer(head, b"\x00\xff\n")) as backend,
        relay(backend.url) as url,
        httpx.AsyncClient() as client,
    ):
        got = await client.request("PROPFIND", f"{url}/a%2Fb?x=1&y", content=b"\x01\x02")
    assert backend.head.startswith(b"PROPFIND /a%2Fb?x=1&y HTTP/1.1\r\n")
    assert backend.body == b"\x01\x02"
    assert (got.status_code, got.reason_phrase, got.content) == (207, "Odd", b"\x00\xff\n")
    assert got.headers.get_list("x-kept") == ["a", "b"]
    assert "x-gone" not in got.headers
    assert b"via: 1.1 jouleproxy" in backend.head.lower()


async def test_a_stream_reaches_the_client_as_it_comes(meter: FakeMeter) -> None:
    proceed = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunked(ROLE + TOKEN, end=False)[0])
        await proceed.wait()
        writer.write(b"".join(chunked(TOKEN, USAGE, DONE)))
        await writer.drain()

    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    async with (
        RawUpstream(script) as backend,
        relay(backend.url, meter.socket) as url,
        httpx.AsyncClient() as client,
        client.stream("POST", url + CHAT, json=body, headers={"x-request-id": "mine"}) as got,
    ):
        pieces = got.aiter_raw()
        seen = await anext(pieces)
        while TOKEN not in seen:
            seen += await anext(pieces)
        proceed.set()
        seen += b"".join([piece async for piece in pieces])
        closed = (await meter.until(Closed))[0]
    assert seen == ROLE + TOKEN + TOKEN + USAGE + DONE
    assert got.headers["x-request-id"] == "mine"
    opened, chunks = (await meter.until(Opened))[0], await meter.until(Chunk, 2)
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert (opened.arrive.request, opened.arrive.model, opened.arrive.stream) == ("mine", "m", True)
    assert [c.tokens for c in chunks if isinstance(c, Chunk)] == [1, 1]
    assert (closed.end.prompt_tokens, closed.end.completion_tokens, closed.end.status) == (3, 2, 200)
    assert (closed.response_id, closed.response_model) == ("c1", "m")


async def test_usage_is_asked_for_and_its_chunk_kept_from_a_client_that_did_not_ask(meter: FakeMeter) -> None:
    async with (
        RawUpstream(answer(SSE, *chunked(ROLE, TOKEN[:20], TOKEN[20:], USAGE, DONE))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        got = await post(url, {"model": "m", "stream": True})
        closed = (await meter.until(Closed))[0]
    assert backend.body == b'{"stream_options":{"include_usage":true},"model":"m","stream":true}'
    assert got.content == ROLE + TOKEN + DONE
    assert isinstance(closed, Closed)
    assert closed.end.prompt_tokens == 3


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/octet-stream", None])
async def test_a_stream_of_another_content_type_is_read_and_edited_as_a_stream(
    meter: FakeMeter, kind: str | None
) -> None:
    line = b"Content-Type: %b\r\n" % kind.encode() if kind else b""
    head = SSE.replace(b"Content-Type: text/event-stream\r\n", line)
    async with (
        RawUpstream(answer(head, *chunked(ROLE[:1], ROLE[1:], TOKEN, USAGE, DONE))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        got = await post(url, {"model": "m", "stream": True})
        closed = (await meter.until(Closed))[0]
    assert got.content == ROLE + TOKEN + DONE
    assert isinstance(closed, Closed)
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (3, 2)


@pytest.mark.parametrize("body", [JSON, b"\n" + JSON, b"dear client", b""])
async def test_a_response_of_an_unclear_content_type_that_is_no_stream_passes_unchanged(body: bytes) -> None:
    async with RawUpstream(answer(whole(body, b"text/plain"))) as backend, relay(backend.url) as url:
        assert (await post(url, {"model": "m", "stream": True})).content == body


async def test_a_client_that_leaves_cancels_its_request(meter: FakeMeter) -> None:
    backend = RawUpstream(answer(b""))
    backend._script = backend.hang
    async with backend, relay(backend.url, meter.socket) as url:
        asking = asyncio.ensure_future(post(url, {"model": "m"}))
        await meter.until(Opened)
        asking.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await backend.gone.wait()
        closed = (await meter.until(Closed))[0]
    assert isinstance(closed, Closed)
    assert closed.end.cancelled


@pytest.mark.parametrize(
    "pieces",
    [(SSE, *chunked(TOKEN, end=False)), (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"half")],
)
async def test_a_backend_that_dies_is_a_broken_stream(pieces: tuple[bytes, ...]) -> None:
    async with RawUpstream(answer(*pieces)) as backend, relay(backend.url) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(url, {"model": "m", "stream": True, "stream_options": {"include_usage": True}})


async def test_a_backend_that_is_not_there_is_an_error_in_openais_shape(meter: FakeMeter) -> None:
    async with relay("http://127.0.0.1:1", meter.socket) as url:
        got = await post(url, {"model": "m"})
        closed = (await meter.until(Closed))[0]
    assert got.status_code == 502
    assert got.json()["error"]["code"] == "backend_unreachable"
    assert isinstance(closed, Closed)
    assert closed.error_type == "backend_unreachable"


async def test_energy_in_a_json_answer(meter: FakeMeter) -> None:
    async with RawUpstream(answer(whole(JSON))) as backend, relay(backend.url, meter.socket) as url:
        plain = await post(url, {"model": "m"})
        got = await post(url, {"model": "m"}, {"x-energy": "on"})
    assert plain.content == JSON
    assert got.content == JSON[:-1] + b',"energy":{"joules":7.5,"final":true}}'
    assert got.headers["x-energy-joules"] == "7.5"
    assert b"x-energy" not in backend.head.lower()


async def test_energy_in_a_stream(meter: FakeMeter) -> None:
    async with (
        RawUpstream(answer(SSE, *chunked(TOKEN, USAGE, DONE))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        comment = await post(url, {"model": "m", "stream": True}, {"x-energy": "on"})
        asked = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
        usage = await post(url, asked, {"x-energy": "on"})
    energy = b'{"joules":7.5,"final":true}'
    assert comment.content == TOKEN + b": energy " + energy + b"\n\n" + DONE
    assert usage.content == TOKEN + USAGE.replace(b'{"prompt', b'{"energy":' + energy + b',"prompt') + DONE


async def test_without_a_meter_serving_goes_on() -> None:
    async with RawUpstream(answer(whole(JSON))) as backend, relay(backend.url) as url:
        got = await post(url, {"model": "m"}, {"x-energy": "on"})
    assert got.json()["energy"] == {"joules": None, "final": False, "unknown": "meter_unavailable"}


async def test_compressed_answers_pass_untouched_and_say_so(meter: FakeMeter) -> None:
    head = whole(b"\x1f\x8bxx").replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    async with (
        RawUpstream(answer(head)) as backend,
        relay(backend.url, meter.socket) as url,
        httpx.AsyncClient() as client,
        client.stream("POST", url + CHAT, json={"model": "m"}) as got,
    ):
        raw = b"".join([piece async for piece in got.aiter_raw()])
        closed = (await meter.until(Closed))[0]
    assert raw == b"\x1f\x8bxx"
    assert isinstance(closed, Closed)
    assert not closed.metered
    assert closed.end.completion_tokens is None


async def listening(config: RelayConfig, context: ssl.SSLContext | None, backend: RawUpstream) -> bytes:
    """What a client reads from a worker of this configuration, host and certificate checked."""
    worker = Worker(config, [Backend(backend.url, "b")], "/nowhere")
    await worker.start()
    try:
        reader, writer = await asyncio.open_connection(config.listen.host, worker.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            got = await reader.read()
        writer.close()
        return got
    finally:
        await worker.close()


async def test_clients_may_come_over_tls(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    config = RelayConfig(
        listen=Address("127.0.0.1", 0),
        drain_timeout_seconds=1.0,
        tls_certificate=made.chain,
        tls_key=made.key,
    )
    trusting = ssl.create_default_context(cafile=made.authority)
    async with RawUpstream(answer(whole(b"{}"))) as backend:
        got = await listening(config, trusting, backend)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"x-forwarded-proto: https\r\n" in backend.head


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_clients_may_come_over_ipv6() -> None:
    config = RelayConfig(listen=Address("::1", 0), drain_timeout_seconds=1.0)
    async with RawUpstream(answer(whole(b"{}"))) as backend:
        got = await listening(config, None, backend)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"X-Forwarded-For: ::1\r\n" in backend.head


async def test_new_settings_read_the_certificate_anew_and_one_that_is_wrong_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new").mkdir()
    old, new = certificates(tmp_path, "127.0.0.1"), certificates(tmp_path / "new", "127.0.0.1")
    config = RelayConfig(
        listen=Address("127.0.0.1", 0), drain_timeout_seconds=1.0, tls_certificate=old.chain, tls_key=old.key
    )
    renewed = replace(config, tls_certificate=new.chain, tls_key=new.key)

    async def shakes_hands(authority: str) -> bool:
        try:
            context = ssl.create_default_context(cafile=authority)
            _, writer = await asyncio.open_connection("127.0.0.1", worker.port, ssl=context)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    worker = Worker(config, [Backend("http://127.0.0.1:1", "b")], "/nowhere")
    await worker.start()
    try:
        assert await shakes_hands(old.authority)
        worker.reconfigure(
            replace(config, tls_certificate=new.authority), [Backend("http://127.0.0.1:1", "b")]
        )
        assert "keeping the old one" in caplog.text
        assert await shakes_hands(old.authority)
        worker.reconfigure(renewed, [Backend("http://127.0.0.1:1", "b")])
        assert not await shakes_hands(old.authority)
        assert await shakes_hands(new.authority)
    finally:
        await worker.close()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("energy", ["off", "on"])
async def test_compressed_responses_pass_untouched_and_are_read(
    meter: FakeMeter, coding: str, energy: str
) -> None:
    packed = (gzip.compress if coding == "gzip" else compress)(JSON)
    head = whole(packed).replace(b"\r\n\r\n", f"\r\nContent-Encoding: {coding}\r\n\r\n".encode(), 1)
    async with (
        RawUpstream(answer(head)) as backend,
        relay(backend.url, meter.socket) as url,
        httpx.AsyncClient() as client,
        client.stream("POST", url + CHAT, json={"model": "m"}, headers={"x-energy": energy}) as got,
    ):
        raw = b"".join([piece async for piece in got.aiter_raw()])
        closed = (await meter.until(Closed))[0]
    assert raw == packed
    assert (b"Accept-Encoding: identity" in backend.head) == (energy == "on")
    assert isinstance(closed, Closed)
    assert closed.metered
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (3, 2)


async def test_a_compressed_stream_is_read_as_it_comes(meter: FakeMeter) -> None:
    made = zlib.compressobj(wbits=31)
    packed = [made.compress(e) + made.flush(zlib.Z_SYNC_FLUSH) for e in (ROLE, TOKEN, TOKEN, USAGE, DONE)]
    head = SSE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    async with (
        RawUpstream(answer(head, *chunked(*packed, made.flush()))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        got = await post(url, {"model": "m", "stream": True, "stream_options": {"include_usage": True}})
        closed, chunks = (await meter.until(Closed))[0], await meter.until(Chunk, 2)
    assert got.content == ROLE + TOKEN + TOKEN + USAGE + DONE
    assert isinstance(closed, Closed)
    assert (len(chunks), closed.metered, closed.end.completion_tokens) == (2, True, 2)


async def test_usage_is_kept_from_the_client_of_a_compressed_stream(meter: FakeMeter) -> None:
    packed = gzip.compress(ROLE + TOKEN + USAGE + DONE)
    head = SSE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    async with (
        RawUpstream(answer(head, *chunked(packed[:40], packed[40:]))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        got = await post(url, {"model": "m", "stream": True})
        closed = (await meter.until(Closed))[0]
    assert got.content == ROLE + TOKEN + DONE
    assert "content-encoding" not in got.headers
    assert isinstance(closed, Closed)
    assert closed.end.completion_tokens == 2


async def test_a_stream_that_cannot_be_decompressed_is_a_broken_stream() -> None:
    head = SSE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    async with (
        RawUpstream(answer(head, *chunked(b"oops, no gzip at all"))) as backend,
        relay(backend.url) as url,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await post(url, {"model": "m", "stream": True})


async def test_a_response_over_all_limits_is_read_for_its_usage(meter: FakeMeter) -> None:
    size = 20 * 1024 * 1024
    body = b'{"data":[{"b64_json":"%b"}],"usage":{"input_tokens":3,"output_tokens":2}}' % (b"x" * size)
    async with RawUpstream(answer(whole(body))) as backend, relay(backend.url, meter.socket) as url:
        got = await post(url, {"model": "m"})
        closed = (await meter.until(Closed))[0]
    assert got.content == body
    assert isinstance(closed, Closed)
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (3, 2)


@pytest.mark.parametrize("framed", [True, False])
async def test_a_response_that_is_too_large_to_be_held_passes_without_energy(
    meter: FakeMeter, framed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_module, "_MAX_HELD_BYTES", 1000)
    body = b'{"data":"%b"}' % (b"x" * 500_000)
    lines = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (lines, *chunked(body[:200_000], body[200_000:])) if framed else (whole(body),)
    async with RawUpstream(answer(*pieces)) as backend, relay(backend.url, meter.socket) as url:
        got = await post(url, {"model": "m"}, {"x-energy": "on"})
    assert got.content == body


async def test_energy_at_the_end_of_a_stream_without_done(meter: FakeMeter) -> None:
    async with (
        RawUpstream(answer(SSE, *chunked(TOKEN, TOKEN[:-1]))) as backend,
        relay(backend.url, meter.socket) as url,
    ):
        got = await post(url, {"model": "m", "stream": True}, {"x-energy": "on"})
        closed = (await meter.until(Closed))[0]
    assert got.content == TOKEN + b': energy {"joules":7.5,"final":true}\n\n' + TOKEN[:-1]
    assert isinstance(closed, Closed)
    assert closed.end.completion_tokens == 2


async def test_fields_that_cannot_be_read_are_reported_and_the_others_are_read(meter: FakeMeter) -> None:
    body = b'{"id":17,"choices":[{"finish_reason":[]}],"usage":{"prompt_tokens":"3","completion_tokens":NaN}}'
    async with RawUpstream(answer(whole(body))) as backend, relay(backend.url, meter.socket) as url:
        await post(url, {"model": "m", "max_tokens": "many"})
        opened, closed = (await meter.until(Opened))[0], (await meter.until(Closed))[0]
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert (opened.arrive.model, closed.response_id) == ("m", "17")
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (3, None)
    assert closed.unread == (
        "request.max_tokens",
        "response.choices.finish_reason",
        "response.usage.completion_tokens",
    )


async def test_a_reranker_that_reports_a_total_alone_reports_its_prompt(meter: FakeMeter) -> None:
    body = b'{"results":[],"usage":{"total_tokens":56}}'
    async with RawUpstream(answer(whole(body))) as backend, relay(backend.url, meter.socket) as url:
        async with httpx.AsyncClient() as client:
            await client.post(f"{url}/v1/rerank", json={"model": "m"})
        closed = (await meter.until(Closed))[0]
    assert isinstance(closed, Closed)
    assert (closed.end.prompt_tokens, closed.end.completion_tokens) == (56, None)
