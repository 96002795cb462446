"""Cases: what passes, and how."""

import asyncio

from tests.contract.backend import OK, Call, chunk, closing, json, reply
from tests.contract.stand import CHAT, GET, POST, STREAM, Group, Stand, check, post

PASSING = Group("forwarding")
CLOSE = b"Connection: close\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'data: {"id":"c","choices":[{"delta":{"content":"%d"}}]}\n\n' % n for n in range(5)]


@PASSING.case("keep-alive: requests in sequence on one connection")
async def keep_alive(stand: Stand) -> None:
    async with stand.client() as client:
        for data in (GET + b"\r\n", post(), GET + b"\r\n"):
            answer = await client.ask(data)
            check((answer.status, answer.body) == (200, OK), f"{answer.status}")


@PASSING.case("keep-alive: HTTP/1.0 and `Connection: close` end the connection")
async def ends(stand: Stand) -> None:
    for head in (b"GET /v1/models HTTP/1.0\r\n\r\n", GET + CLOSE + b"\r\n"):
        async with stand.client() as client:
            check((await client.ask(head)).whole, "broken")
            check(await client.reader.read() == b"", "bytes after the answer")


@PASSING.case("pooling: clients share a connection to the backend")
async def pooling(stand: Stand) -> None:
    for _ in range(3):
        check((await stand.ask(GET + CLOSE + b"\r\n")).status == 200, "no 200")
    check(stand.backend.connections == 1, f"{stand.backend.connections} connections")


@PASSING.case("pipelining: responses in the order of requests")
async def pipelining(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        await call.write(json(b'{"n":"%b"}' % call.head.value(b"x-n")))

    stand.backend.script = script
    async with stand.client() as client:
        client.send(b"".join(GET + b"X-N: %d\r\n\r\n" % n for n in range(3)))
        bodies = [(await client.answer()).body for _ in range(3)]
    check(bodies == [b'{"n":"%d"}' % n for n in range(3)], b" ".join(bodies).decode())


@PASSING.case("chunked request")
async def chunked_request(stand: Stand) -> None:
    data = chunk(CHAT[:20]) + chunk(CHAT[20:]) + chunk(b"")
    answer = await stand.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + data)
    check(answer.status == 200, f"{answer.status}")
    check((await stand.call()).body == CHAT, "another body")


@PASSING.case("chunked response")
async def chunked_answer(stand: Stand) -> None:
    stand.backend.script = reply(CHUNKED + b"\r\n" + chunk(OK[:9]) + chunk(OK[9:]) + chunk(b""))
    async with stand.client() as client:
        for _ in range(2):
            check((await client.ask(GET + b"\r\n")).body == OK, "another body")


@PASSING.case("chunked response to HTTP/1.0: bare")
async def chunked_to_old(stand: Stand) -> None:
    stand.backend.script = reply(CHUNKED + b"\r\n" + chunk(OK) + chunk(b""))
    answer = await stand.ask(b"GET /v1/models HTTP/1.0\r\nHost: proxy.test\r\n\r\n")
    check(not answer.head.value(b"transfer-encoding"), "chunked")
    check(answer.body == OK, "another body")


@PASSING.case("response that ends with its connection")
async def until_close(stand: Stand) -> None:
    stand.backend.script = closing(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"one", b"two")
    answer = await stand.ask(GET + b"\r\n")
    check((answer.body, answer.whole) == (b"onetwo", True), "another body")


@PASSING.case("trailers of a request")
async def request_trailers(stand: Stand) -> None:
    head = POST.replace(b"json", b"octet-stream") + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    await stand.ask(head + chunk(b"abc") + b"0\r\nX-Sum: 1\r\n\r\n")
    check(b"x-sum: 1" in (await stand.call()).trailers.lower(), "dropped")


@PASSING.case("trailers of a response")
async def answer_trailers(stand: Stand) -> None:
    end = b"0\r\nX-Sum: 1\r\n\r\n"
    stand.backend.script = reply(CHUNKED + b"Trailer: X-Sum\r\n\r\n" + chunk(OK) + end)
    answer = await stand.ask(GET + b"TE: trailers\r\n\r\n")
    check(b"x-sum: 1" in answer.trailers.lower(), "dropped")


@PASSING.case("103 Early Hints")
async def early_hints(stand: Stand) -> None:
    stand.backend.script = reply(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", json())
    answer = await stand.ask(GET + b"\r\n")
    check(answer.status == 200, f"{answer.status}")
    check([head.status for head in answer.interim] == [103], "dropped")


@PASSING.case("`Expect: 100-continue`: the interim response")
async def expect(stand: Stand) -> None:
    async with stand.client() as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CHAT))
        check(await client.reader.readline() == b"HTTP/1.1 100 Continue\r\n", "no 100")
        await client.reader.readline()
        answer = await client.ask(CHAT)
        check(answer.status == 200, f"{answer.status}")
    check((await stand.call()).body == CHAT, "another body")


@PASSING.case("HEAD: the length, no body")
async def head_request(stand: Stand) -> None:
    stand.backend.script = reply(json()[: -len(OK)])
    async with stand.client() as client:
        for _ in range(2):
            answer = await client.ask(GET.replace(b"GET", b"HEAD") + b"\r\n")
            check(
                (answer.status, answer.head.value(b"content-length")) == (200, b"%d" % len(OK)), "no length"
            )


@PASSING.case("204 and 304: no body")
async def no_body(stand: Stand) -> None:
    async with stand.client() as client:
        for status in (b"204 No Content", b"304 Not Modified"):
            stand.backend.script = reply(b"HTTP/1.1 " + status + b'\r\nETag: "1"\r\n\r\n')
            answer = await client.ask(GET + b"\r\n")
            check(answer.status == int(status[:3]), f"{answer.status}")
            check(b"chunked" not in answer.head.value(b"transfer-encoding"), "chunked")


@PASSING.case("WebSocket: a tunnel")
async def websocket(stand: Stand) -> None:
    async def echo(call: Call) -> None:
        if call.head.value(b"upgrade").lower() != b"websocket":
            await call.write(json(b"{}", b"426 Upgrade Required"))
            return
        lines = (b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket")
        accept = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
        await call.write(b"\r\n".join((*lines, accept, b"", b"hello")))
        await call.write(await call.reader.readexactly(4))

    stand.backend.script = echo
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    async with stand.client() as client:
        answer = await client.ask(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + key)
        check(answer.status == 101, f"{answer.status}")
        check(await client.reader.readexactly(5) == b"hello", "another byte")
        client.send(b"\x81\x02hi")
        check(await client.reader.readexactly(4) == b"\x81\x02hi", "another byte")


@PASSING.case("hop-by-hop and nominated headers of a request are removed")
async def hop_by_hop(stand: Stand) -> None:
    lines = (
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nTE: gzip\r\nX-Stays: 1\r\n"
    )
    await stand.ask(GET + lines + b"Proxy-Connection: keep-alive\r\n\r\n")
    head = (await stand.call()).head
    names = {name.lower() for name, _ in head.fields}
    left = names & {b"x-hop", b"keep-alive", b"te", b"proxy-connection"}
    check(not left, "passes " + ", ".join(sorted(name.decode() for name in left)))
    check(b"x-stays" in names, "drops X-Stays")


@PASSING.case("hop-by-hop and nominated headers of a response are removed")
async def hop_by_hop_back(stand: Stand) -> None:
    lines = (b"Connection: X-Hop", b"X-Hop: 1", b"Keep-Alive: timeout=9", b"X-Stays: 1")
    stand.backend.script = reply(json(OK, b"200 OK", *lines))
    names = {name.lower() for name, _ in (await stand.ask(GET + b"\r\n")).head.fields}
    left = names & {b"x-hop", b"keep-alive"}
    check(not left, "passes " + ", ".join(sorted(name.decode() for name in left)))
    check(b"x-stays" in names, "drops X-Stays")


@PASSING.case("Via, X-Forwarded-For and -Proto are added, a chain is extended")
async def forwarded(stand: Stand) -> None:
    await stand.ask(
        GET + b"Via: 1.1 before\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n"
    )
    head = (await stand.call()).head
    chain = head.value(b"x-forwarded-for")
    check(chain, "no X-Forwarded-For")
    check(chain.endswith(b"192.0.2.1, 192.0.2.2, 127.0.0.1"), "X-Forwarded-For as it was")
    check(head.value(b"x-forwarded-proto") == b"http", "no X-Forwarded-Proto")
    check(head.value(b"via").startswith(b"1.1 before, 1.1 "), "no Via")


@PASSING.case("a compressed response, unchanged")
async def compressed(stand: Stand) -> None:
    body = b"\x1f\x8b\x08\x00not really"
    stand.backend.script = reply(json(body, b"200 OK", b"Content-Encoding: gzip"))
    answer = await stand.ask(post(CHAT, b"Accept-Encoding: gzip"))
    check((answer.body, answer.head.value(b"content-encoding")) == (body, b"gzip"), "another body")


@PASSING.case("a path is unchanged")
async def path(stand: Stand) -> None:
    await stand.ask(GET.replace(b"/v1/models", b"/a/../b//c%2fd?x=%20&y") + b"\r\n")
    sent = (await stand.call()).head.line.split(b" ")[1]
    check(sent == b"/a/../b//c%2fd?x=%20&y", sent.decode())


@PASSING.case("status, reason, order and case of a response's headers")
async def head_as_it_was(stand: Stand) -> None:
    lines = (b"HTTP/1.1 299 Fine", b"X-CaSe: 1", b"Set-Cookie: a", b"Set-Cookie: b", b"Content-Length: 0")
    stand.backend.script = reply(b"\r\n".join((*lines, b"", b"")))
    answer = await stand.ask(GET + b"\r\n")
    check(answer.head.line == lines[0], answer.head.line.decode())
    wanted = [tuple(line.split(b": ")) for line in lines[1:]]
    check([field for field in answer.head.fields if field in wanted] == wanted, "another head")


@PASSING.case("header sections of 32 KiB, both ways")
async def large_heads(stand: Stand) -> None:
    line = b"X-Large: " + b"a" * 32_768
    stand.backend.script = reply(json(OK, b"200 OK", line))
    answer = await stand.ask(GET + line + b"\r\n\r\n")
    check(len(answer.head.value(b"x-large")) == 32_768, f"{answer.status}")
    check(len((await stand.call()).head.value(b"x-large")) == 32_768, "cut")


@PASSING.case("the first bytes of a response without delay")
async def first_bytes(stand: Stand) -> None:
    seen = asyncio.Event()

    async def script(call: Call) -> None:
        await call.read()
        await call.write(SSE + chunk(EVENTS[0]))
        await seen.wait()
        await call.write(chunk(EVENTS[1]) + chunk(b"data: [DONE]\n\n") + chunk(b""))

    stand.backend.script = script
    async with stand.client() as client:
        client.send(post(STREAM))
        await client.reader.readuntil(EVENTS[0])
        seen.set()
        await client.reader.readuntil(b"[DONE]")


@PASSING.case("chunk boundaries of a stream")
async def boundaries(stand: Stand) -> None:
    async def script(call: Call) -> None:
        await call.read()
        await call.write(SSE)
        for event in EVENTS:
            await call.write(chunk(event[:11]))
            await asyncio.sleep(0.01)
            await call.write(chunk(event[11:]))
            await asyncio.sleep(0.01)
        await call.write(chunk(b""))

    stand.backend.script = script
    answer = await stand.ask(post(STREAM))
    wanted = [part for event in EVENTS for part in (chunk(event[:11]), chunk(event[11:]))] + [chunk(b"")]
    check(answer.body == b"".join(EVENTS), "another body")
    check(answer.raw == wanted, "other chunks")


@PASSING.case("two chunks in one write stay two")
async def chunks_together(stand: Stand) -> None:
    stand.backend.script = reply(SSE + b"".join(map(chunk, EVENTS)) + chunk(b""))
    answer = await stand.ask(post(STREAM))
    check(answer.raw == [*map(chunk, EVENTS), chunk(b"")], "other chunks")
