"""The short way counts what the long way counts, however a stream is cut into reads."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.client.chunk_template import ChunkTemplate, learn_template
from loadgen.client.http_client import Connection
from loadgen.client.responses import StreamedResponse

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(text: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{{"content":{json.dumps(text)}}},"finish_reason":{finish}}}'
    return f'data: {{"id":"c","choices":[{choice}]}}\n\n'.encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


USAGE = b'data: {"choices":[],"usage":{"completion_tokens":9}}\n\n'
OTHERS = (
    chunk(b": comment\n\n"),
    chunk(event("a") + event("b")),
    chunk(event("a", '"length"')),
    chunk(USAGE),
)


class ActiveRequest:
    """Handle a response like the request of an attack."""

    def __init__(self, *, templates: bool) -> None:
        self.answer = StreamedResponse()
        self.templates = 0
        self.end: str | None = "none yet"
        self._follows = templates

    def started(self, t_ns: int) -> None:
        pass

    def status(self, code: int) -> None:
        assert code == 200

    def body(self, data: bytes, t_ns: int) -> None:
        self.answer.feed(data, t_ns)

    def template(self, data: bytes) -> ChunkTemplate | None:
        found = self.answer.template(data) if self._follows else None
        self.templates += found is not None
        return found

    def ended(self, _t_ns: int) -> None:
        self.end = self.answer.outcome()

    def failed(self, reason: str, _t_ns: int) -> None:
        self.end = reason


class Nowhere:
    """A wire that takes a request and sends it to nobody."""

    open = True

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self.open = False


def read(reads: list[bytes], *, templates: bool) -> ActiveRequest:
    connection, call = Connection(lambda _: None), ActiveRequest(templates=templates)
    connection._transport = Nowhere()
    connection.send(call, b"GET / HTTP/1.1\r\n\r\n")
    for number, data in enumerate(reads):
        connection.received(data, 1 + number)
    return call


texts = st.text(max_size=9) | st.sampled_from(['"', "\\", "\n", 'say "x\\"', "5\r\ndata: {"])
chunks = st.lists(st.builds(lambda t: chunk(event(t)), texts) | st.sampled_from(OTHERS), max_size=25)


@given(stream=chunks, cuts=st.lists(st.integers(0, 4000), max_size=12), joined=st.booleans())
def test_any_stream_cut_anywhere_counts_alike(stream: list[bytes], cuts: list[int], joined: bool) -> None:
    end = [chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"]
    whole = b"".join([*stream, *end])
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    reads = [whole[a:b] for a, b in pairwise(edges)] if joined else [*stream, *end]
    short, long = (read([HEAD, *reads], templates=templates) for templates in (True, False))
    assert short.end is None
    assert long.end is None
    assert short.answer.counts == long.answer.counts
    assert len(short.answer.outputs_ns) == len(long.answer.outputs_ns)
    assert short.answer.usage.output == long.answer.usage.output


def test_repeating_chunks_match_the_template() -> None:
    reads = [HEAD, *(chunk(event(f" word{n}")) for n in range(20)), chunk(event("x")) * 3]
    call = read(reads, templates=True)
    assert call.templates == 1
    assert call.answer.counts == [1] * 20 + [3]
    assert call.answer.outputs_ns == sorted(call.answer.outputs_ns)
    assert call.answer.first_ns == call.answer.outputs_ns[0]


def test_attempts_to_learn_a_template_are_limited() -> None:
    reads = [HEAD, *(chunk(event("a").replace(b'"c"', b'"%d"' % n)) for n in range(30))]
    call = read(reads, templates=True)
    assert call.templates == 8
    assert call.answer.counts == [1] * 30


@pytest.mark.parametrize(
    "data", [chunk(event(""))[:-1], chunk(event("")), chunk(USAGE), b"0\r\n\r\n", b"", event("a")]
)
def test_chunks_without_a_template(data: bytes) -> None:
    assert learn_template(data, [], []) is None


def test_a_template_ignores_chunks_that_differ() -> None:
    outputs: list[int] = []
    template = learn_template(chunk(event("a")), outputs, [])
    assert template is not None
    for other in (*OTHERS, chunk(event("b"))[:-1], chunk(event("b")) + b"0\r\n\r\n", b""):
        assert not template.match(other, 1)
    assert outputs == []
