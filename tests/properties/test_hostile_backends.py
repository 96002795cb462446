"""Any bytes from a backend, in any pieces, raise no exception and never block a client.

A client that receives a complete response receives the one that another parser (h11) reads in these bytes.
"""

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.relay.http.framing import chunk
from tests.fakes.conversation import Conversation

POST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
STREAM: Final = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
JSON: Final = b'{"model":"m"}'
EVENT: Final = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'

STATUSES = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 9
    + [b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 500 Oh"]
)
ODD_STATUSES = st.sampled_from(
    [
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 100 Continue",
        b"HTTP/2 200",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"200 OK",
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 099 Low",
    ]
)
FRAMINGS = st.sampled_from(
    [b"Transfer-Encoding: chunked"] * 3
    + [b"Content-Length: 5", b"Content-Length:0", b"content-length: 65", b"X: 1"]
)
KINDS = st.sampled_from(
    [b"Content-Type: text/event-stream", b"Content-Type: application/json", b"Content-Type: a/b"]
)
ODD_LINES = st.sampled_from(
    [
        b"Content-Length: 5",
        b"content-length: 5, 5",
        b"Content-Length: +5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding:",
        b"Content-Encoding: gzip",
        b"Connection: close",
        b"Connection: a",
        b"Upgrade: websocket",
        b"X: a\rb",
        b"X: a\nY: b",
        b"X: a\0b",
        b" folded",
        b"X : a",
        b": a",
        b"nothing",
    ]
)
ENDS = st.sampled_from([b"\r\n\r\n"] * 19 + [b"\n\n", b"\r\n", b"\r\n\n"])
TEXTS = st.sampled_from([b"a", b"hello", b'\\"', b"\xff", b'"', b"\\u00e9", b""])
CHUNKS = st.one_of(
    TEXTS.map(lambda text: chunk(EVENT % text)),
    st.sampled_from([b"a", b"hello", b"{}"]).map(chunk),
    st.just(b"hello"),
)
ODD_CHUNKS = st.sampled_from(
    [
        b"0\r\nX: 1\r\n\r\n",
        b"5\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"zz\r\n",
        b"ffffffffffffffff\r\n",
        b"{}",
        b"5\r\nhelloX",
        b"data: [DONE]\n\n",
        b"\r\n",
        b"0\r\nX\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"0\r\n",
    ]
)
HEADS = st.builds(
    lambda status, framing, kind, odd, end: b"\r\n".join((status, framing, kind, *odd)) + end,
    st.one_of(STATUSES, STATUSES, STATUSES, ODD_STATUSES),
    FRAMINGS,
    KINDS,
    st.one_of(st.just([]), st.just([]), st.lists(ODD_LINES, min_size=1, max_size=2)),
    ENDS,
)
INTERIM = st.sampled_from(
    [b""] * 5 + [b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
LASTS = st.sampled_from([b"0\r\n\r\n"] * 5 + [b"", b"0\r\nX: 1\r\n\r\n", b"0\r\n\r\nmore"])
SAID = st.builds(
    lambda interim, head, chunks, odd, last: b"".join((interim, head, *chunks, *odd, last)),
    INTERIM,
    HEADS,
    st.lists(CHUNKS, max_size=5),
    st.one_of(st.just([]), st.just([]), st.lists(ODD_CHUNKS, min_size=1, max_size=2)),
    LASTS,
)


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def read(data: bytes, method: bytes) -> tuple[int, bytes] | None:
    """Return status and body of the final response as h11 reads it; None if it is incomplete."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[("host", "h"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        client.receive_data(data)
        if data:
            client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        logging.disable(logging.WARNING)  # each example is one
        yield made
        logging.disable(logging.NOTSET)


@settings(deadline=None, max_examples=150)
@given(
    SAID,
    st.lists(st.integers(0, 400), max_size=8),
    st.booleans(),
    st.sampled_from([b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", STREAM, JSON]),
)
def test_a_complete_response_is_the_one_that_another_parser_reads(
    runner: asyncio.Runner, said: bytes, cuts: list[int], error: bool, request_body: bytes
) -> None:
    plain = request_body.startswith(b"GET")
    request = (
        request_body if plain else POST + b"Content-Length: %d\r\n\r\n" % len(request_body) + request_body
    )
    talk = runner.run(_converse(request, parts(said, cuts), error=error))
    talk.check(metered=not plain)
    method = b"GET" if plain else b"POST"
    got = None if talk.transport.broken else read(talk.transport.written, method)
    if got is not None and got[0] not in {204, 304, 502}:  # h11 refuses framing also where no body is
        assert got == read(said, method)


async def _converse(
    request: bytes, pieces: list[bytes], *, error: bool = False, leaves: int | None = None
) -> Conversation:
    talk = Conversation()
    await talk.answered(request, pieces, error=error, leaves=leaves)
    return talk


@settings(deadline=None, max_examples=80)
@given(SAID, st.lists(st.integers(0, 400), max_size=8), st.sampled_from(["off", "on"]), st.integers(0, 9))
def test_nothing_hangs_where_the_answer_is_changed_or_the_client_leaves(
    runner: asyncio.Runner, said: bytes, cuts: list[int], energy: str, leaves: int
) -> None:
    body = b'{"model":"m","stream":true}'
    head = POST + b"X-Energy: %b\r\nContent-Length: %d\r\n\r\n" % (energy.encode(), len(body))
    runner.run(_converse(head + body, parts(said, cuts), leaves=leaves)).check(metered=True)
