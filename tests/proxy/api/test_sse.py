from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import sse
from proxy.api.sse import EventSplitter, begins_stream, data_of

EVENTS = [
    b"data: {}\n\n",
    b": hi\r\n\r\n",
    b"event: x\ndata: a\ndata: b\n\n",
    b"data:1\r\r",
    b"data: [DONE]\n\n",
]


@given(st.lists(st.sampled_from(EVENTS), max_size=8), st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_the_same_events(events: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(events) + b"data: torn"
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    splitter = EventSplitter()
    out = [e for a, b in pairwise(edges) for e in splitter.feed(stream[a:b])]
    assert out == events
    assert splitter.rest == b"data: torn"


def test_the_data_of_an_event() -> None:
    assert data_of(b'data: {"a": 1}\n\n') == b'{"a": 1}'
    assert data_of(b"event: x\r\ndata: a\r\ndata:b\r\n\r\n") == b"a\nb"
    assert data_of(b": only a comment\n\n") is None


def test_a_huge_event_comes_in_pieces_and_the_next_ones_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)
    splitter = EventSplitter()
    pieces = splitter.feed(b"data: and so on") + splitter.feed(b" and on\n\ndata: 1\n\n")
    assert b"".join(pieces) == b"data: and so on and on\n\ndata: 1\n\n"
    assert pieces[-1] == b"data: 1\n\n"


def test_line_ends_of_both_kinds_end_an_event() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\r") == []
    assert splitter.feed(b"\ndata: 2\n\n") == [b"data: 1\n\r\n", b"data: 2\n\n"]


def test_the_first_bytes_of_a_stream_differ_from_those_of_json() -> None:
    for event in EVENTS:
        assert begins_stream(event)
    assert all(begins_stream(begin) for begin in (b"d", b"\xef\xbb\xbfdata: {}", b"\r\nid: 1", b":"))
    assert not any(begins_stream(begin) for begin in (b"", b"{", b'["data:"]', b"null", b"\r\n", b"dare"))
