"""Bodies: any split gives the same payload; what is malformed is refused."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.relay.http.framing import Chunked, Fixed, FramingError, chunk


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 300), max_size=12))
def test_chunks_of_any_split(payloads: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(chunk(p) for p in payloads) + b"0\r\nX: y\r\n\r\n"
    stream = raw + b"GET /next"
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    body, got, used = Chunked(), b"", 0
    for start, end in pairwise(edges):
        pieces, taken = body.feed(stream[start:end])
        got += b"".join(pieces)
        used += taken
    assert (got, used, body.done) == (b"".join(payloads), len(raw), True)


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\n", b"\r", b"0", b"2", b"a", b"ab", b";x=1", b" ", b"X: y", b"-"]),
        max_size=9,
    )
)
def test_nothing_is_taken_that_another_parser_refuses(parts: list[bytes]) -> None:
    data = b"".join(parts)
    body = Chunked()
    try:
        pieces, used = body.feed(data)
    except FramingError:
        return
    if body.done:
        assert b"".join(pieces) == oracle(data[:used])


def oracle(data: bytes) -> bytes:
    """The payload as h11 reads it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    got = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            got += bytes(event.data)
    return got


def test_a_length_takes_no_more() -> None:
    body = Fixed(3)
    assert body.feed(b"ab") == ([b"ab"], 2)
    assert body.feed(b"cGET") == ([b"c"], 1)
    assert body.done


@pytest.mark.parametrize("line", [b"1" * 5000, b"1;" + b"x" * 5000])
def test_lines_are_bounded(line: bytes) -> None:
    with pytest.raises(FramingError, match="longer"):
        Chunked().feed(line)


def test_extensions_are_bounded() -> None:
    with pytest.raises(FramingError, match="extensions"):
        Chunked().feed((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 20)
