import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.chunks import template_of
from proxy.api.sse import EventSplitter
from proxy.core.events import Arrive
from proxy.ipc import Chunk
from proxy.relay.http.framing import Chunked, FramingError, chunk
from proxy.relay.meter_link import MeterLink
from proxy.relay.request_meter import RequestMeter
from proxy.relay.response.fast_path import StreamForwarder
from proxy.relay.response.reading import Reading


def event(text: str, key: str = "content", more: str = "") -> bytes:
    body = f'{{"id":"c","choices":[{{"index":0,"delta":{{"{key}":{json.dumps(text)}}}{more}}}]}}'
    return f"data: {body}\n\n".encode()


class Stream:
    """A lane for events like ``event("one")``, what it wrote, and what it told."""

    def __init__(self) -> None:
        template = template_of(event("one"))
        assert template is not None
        self.link = MeterLink("", 100)
        self.call = RequestMeter(self.link, Arrive(1, "r"), None, None)
        self.written: list[bytes] = []
        self.forwarder = StreamForwarder(template, self.call, self.written.append)

    def tokens(self) -> int:
        told = [message for message in self.link._pending if isinstance(message, Chunk)]
        assert self.call.reading.counted == sum(chunk.tokens for chunk in told) == len(told)
        return len(told)


@pytest.mark.parametrize("text", [" two", 'a "word"', "\\", "\n", "é", "字", "x" * 3000])
def test_chunks_of_one_shape_pass_as_they_are_for_a_token_each(text: str) -> None:
    stream = Stream()
    data = chunk(event(text))
    assert stream.forwarder.forward(data)
    assert stream.forwarder.forward(data + chunk(event("three")) + data)
    assert b"".join(stream.written) == data + data + chunk(event("three")) + data
    assert stream.tokens() == 4
    assert stream.forwarder.last_ns > 0


@pytest.mark.parametrize(
    "data",
    [
        chunk(event("")),
        chunk(event("x", more=',"finish_reason":"stop"')),
        chunk(event("x"))[:-1],
        chunk(event("x")) + b"0\r\n\r\n",
        chunk(event("x")).replace(b"\r\n", b"\n", 1),
        chunk(event("x")).replace(b"\r\n", b";a=b\r\n", 1),
        b"0" + chunk(event("x")),
        chunk(event("x") + event("y")),
        chunk(b"data: [DONE]\n\n"),
        chunk(event("x" * 5000)),
        chunk(event("x", key="reasoning_content")),
        b"",
    ],
)
def test_all_else_is_left_to_the_parsers(data: bytes) -> None:
    stream = Stream()
    assert not stream.forwarder.forward(data)
    assert stream.written == []
    assert stream.tokens() == 0


@pytest.mark.parametrize(
    "other",
    [
        event(""),
        event("x").replace(b"\n\n", b"\r\n\r\n"),
        b": comment\n" + event("x"),
        event("x", more=',"usage":{"completion_tokens":1}'),
        event("x", more=',"delta":{"content":"y"}'),
        b'data: {"choices":[{"text":1}]}\n\n',
        b'data: {"choices":[{"text":"a\x01"}]}\n\n',
        b"data: [DONE]\n\n",
    ],
)
def test_events_of_which_more_than_the_text_may_speak_have_no_shape(other: bytes) -> None:
    assert template_of(other) is None


def test_a_text_that_looks_like_a_key_is_text() -> None:
    assert template_of(event('"content":"')) is not None


def parsed(data: bytes) -> tuple[bool, int]:
    """Whether the bytes are whole chunks of an answer that goes on, and the tokens in them."""
    body, splitter, reading = Chunked(), EventSplitter(), Reading()
    try:
        pieces, used = body.feed(data)
    except FramingError:
        return False, 0
    events = [found for piece in pieces for found in splitter.feed(piece)]
    for found in events:
        reading.read_event(found)
    return used == len(data) and body.between and not splitter.rest, reading.counted


@st.composite
def said(draw: st.DrawFn) -> tuple[bytes, int, bool]:
    """Chunks, how many, and whether they are whole; else a byte of them is another, or more, or none."""
    texts = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
    data = b"".join(chunk(event(text)) for text in texts)
    if draw(st.booleans()):
        return data, len(texts), True
    place = draw(st.integers(0, len(data)))
    other = draw(st.sampled_from([b"", b"0", b'"', b"\\", b"}", b"\r\n", b"\xc3"]))
    return data[:place] + other + data[place + 1 :], len(texts), False


@given(said())
def test_what_is_taken_is_what_the_parsers_say(made: tuple[bytes, int, bool]) -> None:
    data, count, whole_chunks = made
    stream = Stream()
    taken = stream.forwarder.forward(data)
    assert taken or not whole_chunks
    if taken:
        whole, tokens = parsed(data)
        assert whole
        assert tokens <= stream.tokens() == count  # a text that is no JSON counts, too
        assert stream.written == [data]
