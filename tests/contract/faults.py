"""Cases: a backend that fails. An error before the first byte, a broken stream after, never a clean end."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import msgspec

from tests.contract.backend import Call, Script, chunk, closing, json, reply
from tests.contract.passing import CLOSE, EVENTS, SSE
from tests.contract.stand import GET, POST, SOON_SECONDS, STREAM, DiffersError, Group, Stand, check, post
from tests.contract.wire import Answer

FAULTS = Group("faults")
_T = TypeVar("_T")


def _error(answer: Answer) -> None:
    check(answer.status in {502, 503, 504}, f"{answer.status}")


async def _broken(stand: Stand, script: Script) -> None:
    stand.backend.script = script
    answer = await stand.ask(post(STREAM))
    check(answer.status == 200, f"{answer.status}")
    check(not answer.whole, "a clean end")


@FAULTS.case("refused: 502, 503 or 504")
async def refused(stand: Stand) -> None:
    await stand.backend.down()
    try:
        _error(await stand.ask(post()))
    finally:
        await stand.backend.up()


@FAULTS.case("refused: the error has OpenAI's shape")
async def shape(stand: Stand) -> None:
    await stand.backend.down()
    try:
        answer = await stand.ask(post())
    finally:
        await stand.backend.up()
    check(answer.head.value(b"content-type").startswith(b"application/json"), "no JSON")
    error = msgspec.json.decode(answer.body).get("error")
    check(isinstance(error, dict) and {"message", "type", "code"} <= error.keys(), "another shape")


@FAULTS.case("closed before the first byte: 502")
async def closed_first(stand: Stand) -> None:
    stand.backend.script = closing()
    _error(await stand.ask(post()))


@FAULTS.case("reset before the first byte: 502")
async def reset_first(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        call.reset()

    stand.backend.script = script
    _error(await stand.ask(post()))


@FAULTS.case("a response that is not HTTP: 502")
async def no_http(stand: Stand) -> None:
    stand.backend.script = closing(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    _error(await stand.ask(post()))


@FAULTS.case("two lengths in a response: 502")
async def two_lengths(stand: Stand) -> None:
    stand.backend.script = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc")
    _error(await stand.ask(post()))


@FAULTS.case("a header section of 1 MiB in a response: 502")
async def endless_head(stand: Stand) -> None:
    stand.backend.script = closing(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n")
    _error(await stand.ask(post()))


@FAULTS.case("closed before the first byte of a response to HEAD: 502")
async def to_head(stand: Stand) -> None:
    stand.backend.script = closing()
    async with stand.client() as client:
        client.send(GET.replace(b"GET", b"HEAD") + CLOSE + b"\r\n")
        _error(await client.answer(b"HEAD"))


@FAULTS.case("reset within a stream: broken")
async def reset_within(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        await call.write(SSE + chunk(EVENTS[0]))
        await asyncio.sleep(0.02)
        call.reset()

    await _broken(stand, script)


@FAULTS.case("closed within a stream: broken")
async def closed_within(stand: Stand) -> None:
    await _broken(stand, closing(SSE + chunk(EVENTS[0])))


@FAULTS.case("a truncated chunk: broken")
async def truncated(stand: Stand) -> None:
    await _broken(stand, closing(SSE + chunk(EVENTS[0])[:-9]))


@FAULTS.case("a chunk's size that is invalid: broken")
async def bad_size(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        await call.write(SSE + chunk(EVENTS[0]))
        await asyncio.sleep(0.02)
        await call.write(b"zz\r\n" + EVENTS[1] + b"\r\n0\r\n\r\n")

    await _broken(stand, script)


@FAULTS.case("less than its Content-Length: broken")
async def too_short(stand: Stand) -> None:
    await _broken(stand, closing(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"))


@FAULTS.case("more than its Content-Length: the rest is discarded")
async def too_long(stand: Stand) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    stand.backend.script = reply(json() + forged)
    for _ in range(2):
        answer = await stand.ask(GET + CLOSE + b"\r\n")
        check((answer.status, answer.body) == (200, json().partition(b"\r\n\r\n")[2]), "another body")


@FAULTS.case("a backend's own error is unchanged")
async def own_errors(stand: Stand) -> None:
    body = b'{"object":"error","message":"too many"}'
    for status in (b"429 Too Many Requests", b"500 Internal Server Error", b"503 Service Unavailable"):
        stand.backend.script = reply(json(body, status, b"Retry-After: 7"))
        answer = await stand.ask(post())
        check((answer.status, answer.body) == (int(status[:3]), body), f"{answer.status}")
        check(answer.head.value(b"retry-after") == b"7", "no Retry-After")


@FAULTS.case("a kept connection that was closed: the request is repeated")
async def kept_and_dead(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        if len(stand.backend.calls) == 1:
            await call.write(json())
        elif len(stand.backend.calls) == 2:  # over the kept connection: it had ended meanwhile
            call.reset()
        else:
            await call.write(json())

    stand.backend.script = script
    check((await stand.ask(GET + CLOSE + b"\r\n")).status == 200, "no 200")
    answer = await stand.ask(GET + CLOSE + b"\r\n")
    check(answer.status == 200, f"{answer.status}")


@FAULTS.case("a POST that failed on a new connection is not sent twice")
async def not_twice(stand: Stand) -> None:
    stand.backend.script = closing()
    _error(await stand.ask(post()))
    check(len(stand.backend.calls) == 1, f"sent {len(stand.backend.calls)} times")


@FAULTS.case("a response before the upload's end is delivered, then the connection closes")
async def early_answer(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.write(json(b"{}", b"413 Content Too Large", b"Connection: close"))
        await call.left()

    stand.backend.script = script
    async with stand.client() as client:
        client.send(
            POST.replace(b"json", b"octet-stream") + b"Content-Length: 100000\r\n\r\n" + b"a" * 50_000
        )
        answer = await _soon(client.answer(), "waits for its end")
        check(answer.status == 413, f"{answer.status}")
        client.send(b"a" * 49_000)
        check(await _soon(client.reader.read(), "kept open") == b"", "more than one answer")


async def _soon(waited: Awaitable[_T], instead: str) -> _T:
    try:
        async with asyncio.timeout(SOON_SECONDS):
            return await waited
    except TimeoutError:
        raise DiffersError(instead) from None
