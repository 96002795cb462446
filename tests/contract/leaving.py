"""Cases: a client that leaves, and who reads too slowly."""

import asyncio
import contextlib
from collections.abc import Callable
from time import perf_counter
from typing import Final

from tests.contract.backend import Call, chunk, json
from tests.contract.passing import EVENTS, SSE
from tests.contract.stand import GET, POST, SOON_SECONDS, STREAM, Group, Stand, check, post
from tests.timing import Punctuality

LEAVING = Group("cancellation and flow control")
_WITHIN_SECONDS: Final = 0.010
_TRIES: Final = 20  # one within the time will do: the machine may be busy with other things
_MIB: Final = 1 << 20
_FEW: Final = 8 * _MIB
_OWN: Final = 1 << 16  # bytes of kernel buffers on our sides: what is held is the proxy's


async def _hung_up(stand: Stand, request: bytes, first: bytes, until: bytes) -> None:
    """Disconnect once ``until`` was read; check how soon the proxy closes its backend connection."""
    best = float("inf")
    for _ in range(_TRIES):
        ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def script(call: Call, ended: asyncio.Future[float] = ended) -> None:
            await call.read()
            await call.write(first)
            left = await call.left()
            if not ended.done():
                ended.set_result(left)

        stand.backend.reset()
        stand.backend.script = script
        async with stand.client() as client:
            client.send(request)
            await stand.call()
            await (client.reader.readuntil(until) if until else asyncio.sleep(0.05))
            left = perf_counter()
            client.leave()
            try:
                with Punctuality() as machine:
                    async with asyncio.timeout(SOON_SECONDS):
                        took = await ended - left
            except TimeoutError:
                break
            best = min(best, took - machine.late_seconds)  # what the machine was late by is not the proxy's
        if best <= _WITHIN_SECONDS:
            return
    check(best < SOON_SECONDS, "goes on")
    check(right=False, instead=f"after {best * 1000:.0f} ms")


@LEAVING.case("disconnected before the first byte: backend notified within 10 ms")
async def before(stand: Stand) -> None:
    await _hung_up(stand, post(), b"", b"")


@LEAVING.case("disconnected while the stream is silent: within 10 ms")
async def silent(stand: Stand) -> None:
    await _hung_up(stand, post(STREAM), SSE, b"\r\n\r\n")


@LEAVING.case("disconnected mid-stream: within 10 ms")
async def midstream(stand: Stand) -> None:
    await _hung_up(stand, post(STREAM), SSE + b"".join(map(chunk, EVENTS)), EVENTS[-1])


@LEAVING.case("disconnected during its upload: the backend's request ends")
async def uploading(stand: Stand) -> None:
    ended = asyncio.Event()

    async def script(call: Call) -> None:
        await call.left()
        ended.set()

    stand.backend.script = script
    async with stand.client() as client:
        client.send(POST.replace(b"json", b"octet-stream") + b"Content-Length: 1000\r\n\r\nabc")
        try:
            async with asyncio.timeout(SOON_SECONDS):
                await stand.call()
        except TimeoutError:
            return  # it waits for the complete body: no request was started
        client.leave()
        await ended.wait()


@LEAVING.case("a client that does not read pauses the backend within 8 MiB, then receives everything")
async def slow_reader(stand: Stand) -> None:
    sent, size = 0, 32 * _MIB

    async def script(call: Call) -> None:
        nonlocal sent
        call.own_buffers(_OWN)
        await call.read()
        await call.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await call.write(bytes(1 << 16))
            sent += 1 << 16

    stand.backend.script = script
    async with stand.client(_OWN) as client:
        client.hold(held=True)
        client.send(GET + b"\r\n")
        held = await _steady(lambda: sent)
        client.hold(held=False)
        answer = await client.answer()
    check(len(answer.body) == size, "not all")
    check(held <= _FEW, f"{held / _MIB:.1f} MiB")


@LEAVING.case("a backend that does not read pauses the client within 8 MiB")
async def slow_backend(stand: Stand) -> None:
    sent, size, proceed = 0, 32 * _MIB, asyncio.Event()

    async def script(call: Call) -> None:
        call.own_buffers(_OWN)
        call.hold(held=True)
        await proceed.wait()
        call.hold(held=False)
        await call.read()
        await call.write(json())

    async def upload() -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):  # it may be rejected: the response shows it
            while sent < size:
                client.send(bytes(1 << 16))
                await client.writer.drain()
                sent += 1 << 16

    stand.backend.script = script
    async with stand.client(_OWN) as client:
        client.send(POST.replace(b"json", b"octet-stream") + b"Content-Length: %d\r\n\r\n" % size)
        uploading = asyncio.ensure_future(upload())
        try:
            held = await _steady(lambda: sent)
            proceed.set()
            answer = await client.answer()
        finally:
            uploading.cancel()
    check(answer.status == 200, f"{answer.status}")
    check(held <= _FEW, f"{held / _MIB:.1f} MiB")


async def _steady(count: Callable[[], int]) -> int:
    """Return a count once it has not grown for 0.3 s."""
    last = -1
    while (now := count()) != last or not now:
        last = now
        await asyncio.sleep(0.3)
    return last


@LEAVING.case("an upload reaches the backend as it is sent")
async def streamed(stand: Stand) -> None:
    seen = asyncio.Event()

    async def script(call: Call) -> None:
        await call.reader.readexactly(3)
        seen.set()
        await call.reader.readexactly(3)
        await call.write(json())

    stand.backend.script = script
    async with stand.client() as client:
        client.send(POST.replace(b"json", b"octet-stream") + b"Content-Length: 6\r\n\r\nabc")
        try:
            async with asyncio.timeout(SOON_SECONDS):
                await seen.wait()
        except TimeoutError:
            check(right=False, instead="after its end")
        check((await client.ask(b"def")).status == 200, "no 200")


@LEAVING.case("an upload of 64 MiB adds at most 4 MB of memory", needs_pids=True)
async def large_upload(stand: Stand) -> None:
    size, got = 64 * _MIB, 0

    async def script(call: Call) -> None:
        nonlocal got
        want = got + int(call.head.value(b"content-length"))
        while got < want:
            got += len(await call.reader.read(1 << 18))
        await call.write(json())

    async def upload(count: int) -> int:
        grown = 0
        head = POST.replace(b"/chat/completions", b"/images/edits").replace(b"json", b"octet-stream")
        async with stand.client() as client:
            client.send(head + b"Content-Length: %d\r\n\r\n" % count)
            base = stand.rss_bytes()
            for _ in range(count // _MIB):
                client.send(bytes(_MIB))
                await client.writer.drain()
                grown = max(grown, stand.rss_bytes() - base)
            answer = await client.answer()
            check(answer.status == 200, f"{answer.status}")
        return grown

    stand.backend.script = script
    await upload(_MIB)
    grown = await upload(size)
    check(got == size + _MIB, "not all of it")
    check(grown <= 4_000_000, f"{grown / 1e6:.0f} MB")
