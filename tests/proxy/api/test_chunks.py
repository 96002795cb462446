import json

import pytest

from proxy.api.chunks import event_in, match_chunk, template_of
from proxy.relay.http.framing import chunk


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % json.dumps(text).encode()


TEMPLATE = template_of(event("first"))
assert TEMPLATE is not None
PREFIX, SUFFIX = TEMPLATE


@pytest.mark.parametrize("text", ["x", 'a "quote"', "back\\slash", "\n", "é", "字"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_chunks_that_differ_in_their_text_match(text: str, count: int) -> None:
    assert match_chunk(chunk(event(text)) * count, PREFIX, SUFFIX) == count


@pytest.mark.parametrize(
    "data",
    [
        b"",
        chunk(event("")),
        chunk(event("x"))[:-1],
        chunk(event("x")) + b"0\r\n\r\n",
        chunk(event("x")).replace(b"\r\n", b";ext=1\r\n", 1),
        chunk(event("x") + event("y")),
        chunk(event("x").replace(b'"index":0', b'"index":1')),
        chunk(event("x").replace(b'"x"', b'"\\"')),
        chunk(event("x" * 5000)),
    ],
)
def test_other_bytes_do_not_match(data: bytes) -> None:
    assert match_chunk(data, PREFIX, SUFFIX) == 0


@pytest.mark.parametrize("text", ["", '"},"usage":{"'])
def test_an_event_gives_a_template_only_if_its_text_is_not_empty(text: str) -> None:
    assert (template_of(event(text)) is not None) == bool(text)


def test_the_content_of_exactly_one_chunk_is_found() -> None:
    assert event_in(chunk(event("x"))) == event("x")
    assert event_in(chunk(event("x")) * 2) is None
    assert event_in(chunk(event("x"))[:-1]) is None
