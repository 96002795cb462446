"""A request head that is accepted means the same to another parser (h11)."""

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.relay.http.framing import Chunked, Fixed
from proxy.relay.http.heads import HeadError, RequestHead, parse_request
from tests.fakes.conversation import Conversation

FIRST: Final = st.sampled_from(
    [b"POST /v1/x?a=b HTTP/1.1"] * 6
    + [
        b"GET / HTTP/1.1",
        b"HEAD /a%20b HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http://h/x HTTP/1.1",
        b"GET / HTTP/1.0",
        b"get / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / http/1.1",
        b"GET / HTTP/1.10",
        b"GET\t/ HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET /",
        b"G(T / HTTP/1.1",
        b"CONNECT h:1 HTTP/1.1",
        b"",
    ]
)
NAMES: Final = st.sampled_from(
    [
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"transfer-encoding",
        b"Host",
        b"X",
        b"Connection",
        b"X ",
        b" X",
        b"X\t",
        b"X\0",
        b"\x80",
        b"",
        b"Content-Length ",
        b"Transfer_Encoding",
        b"Content-Length\x0b",
        b"(x)",
    ]
)
VALUES: Final = st.sampled_from(
    [
        b"5",
        b"5",
        b"0",
        b"05",
        b"+5",
        b"5 ",
        b" 5",
        b"5,5",
        b"5, 5",
        b"0x5",
        b"-5",
        b"5_0",
        b"\xb25",
        b"",
        b"chunked",
        b"chunked",
        b"Chunked",
        b"chunked ",
        b"\x0bchunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"identity",
        b"h",
        b"close",
        b"a\rb",
        b"a\nb",
        b"a\0b",
        b"a\x01b",
        b"a\x7fb",
        b"a\xffb",
        b"a\tb",
        b",chunked",
        b'"chunked"',
    ]
)
BREAKS: Final = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b""])
LINES: Final = st.lists(
    st.tuples(NAMES, st.sampled_from([b": ", b":", b":\t", b" :", b""]), VALUES, BREAKS), max_size=3
)
HOSTS: Final = st.sampled_from([b"Host: h\r\n"] * 5 + [b"", b"Host: h\r\nHost: h\r\n", b"Host:h\r\n"])


def oracle(raw: bytes) -> h11.Request | None:
    """Return the head as h11 reads it; None: it rejects it, or needs more bytes."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def check(ours: RequestHead, theirs: h11.Request) -> None:
    fields = [(name.lower(), value.strip()) for name, value in ours.headers]
    fields = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in fields]  # as h11 gives it
    values = dict(theirs.headers)
    assert ours.method == theirs.method
    assert theirs.target.endswith(ours.target)
    assert fields == [(name, value) for name, value in theirs.headers]
    assert isinstance(ours.body, Chunked) == (b"transfer-encoding" in values)
    if isinstance(ours.body, Fixed):
        assert ours.length == int(values[b"content-length"])
    elif ours.body is None:
        assert int(values.get(b"content-length", b"0")) == 0


@settings(deadline=None, max_examples=600)
@given(FIRST, HOSTS, LINES)
def test_what_is_taken_is_read_alike(
    first: bytes, hosts: bytes, lines: list[tuple[bytes, bytes, bytes, bytes]]
) -> None:
    raw = b"".join((first, b"\r\n", hosts, *(b"".join(line) for line in lines), b"\r\n"))
    raw = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"  # as the connection cuts it
    try:
        ours = parse_request(raw, 1000)
    except HeadError:
        return
    theirs = oracle(raw)
    assert theirs is not None, "it is refused elsewhere"
    check(ours, theirs)


ROUTES: Final = st.sampled_from([b"POST /v1/chat/completions", b"POST /x", b"PUT /x"])
FRAMINGS: Final = st.sampled_from(
    [b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"]
)
KINDS: Final = st.sampled_from(
    [b"Content-Type: application/json\r\n", b"", b"Expect: 100-continue\r\n", b"Connection: close\r\n"]
)
BODIES: Final = st.lists(
    st.sampled_from(
        [
            *(b"5\r\nhello\r\n",) * 4,
            *(b"0\r\n\r\n",) * 3,
            b"hello",
            b"5;a=b\r\nhello\r\n",
            b"0\r\nX: 1\r\n\r\n",
            b"5\nhello\n",
            b"5\r\nhello!",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"0\r\nX\r\n\r\n",
            b"\r\n",
            b"{}",
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ]
    ),
    max_size=6,
).map(b"".join)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        logging.disable(logging.WARNING)
        yield made
        logging.disable(logging.NOTSET)


async def _asked(pieces: list[bytes]) -> Conversation:
    talk = Conversation()
    await talk.asked(pieces)
    return talk


def heard(data: bytes) -> int:
    """How many requests another parser reads in what a backend got; fails where it refuses any of it."""
    server = h11.Connection(h11.SERVER)
    if data:  # none would be the end of the connection
        server.receive_data(data)
    count = 0
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            break
        count += isinstance(event, h11.Request)
    return count


@settings(deadline=None, max_examples=150)
@given(ROUTES, FRAMINGS, KINDS, BODIES, st.lists(st.integers(0, 200), max_size=6))
def test_a_backend_gets_nothing_that_is_no_request(
    runner: asyncio.Runner, route: bytes, framing: bytes, kind: bytes, body: bytes, cuts: list[int]
) -> None:
    said = b"".join((route, b" HTTP/1.1\r\nHost: h\r\n", framing, kind, b"\r\n", body))
    edges = sorted({0, len(said), *(min(cut, len(said)) for cut in cuts)})
    talk = runner.run(_asked([said[start:end] for start, end in pairwise(edges)]))
    talk.check_ended()
    assert heard(talk.backend.written) <= 1, "the next one waits for the answer to this one"
