"""Complete JSON responses are read at any size, in bounded memory."""

import msgspec
import pytest

from proxy.api import body as module
from proxy.api.body import BodyReader
from proxy.api.fields import ResponseBody

LARGE = b"x" * (2 * module.MAX_GATHERED_BYTES)
USAGE = b'"usage":{"input_tokens":5,"output_tokens":7}'


def read(body: bytes, piece: int = 65_536) -> tuple[ResponseBody | None, int | None, list[str]]:
    reader = BodyReader()
    for at in range(0, len(body), piece):
        reader.feed(body[at : at + piece])
    unread: list[str] = []
    return *reader.finish(unread), unread


@pytest.mark.parametrize("large", [b"x", LARGE])
@pytest.mark.parametrize("first", [True, False])
def test_usage_and_items_are_read_wherever_they_stand(large: bytes, first: bool) -> None:
    data = b'"data":[{"b64_json":"%b"},{"b64_json":"a\\"b"}]' % large
    parts = (USAGE, data) if first else (data, USAGE)
    found, items, unread = read(b'{"created":1,%b,%b}' % parts)
    assert found is not None
    assert found.usage is not None
    assert (found.usage.output_tokens, items, unread) == (7, 2, [])


def test_a_field_that_is_too_long_is_reported_and_the_others_are_read() -> None:
    found, items, unread = read(b'{"choices":[{"text":"%b"}],%b}' % (LARGE, USAGE))
    assert found is not None
    assert found.usage is not None
    assert (found.choices, items, unread) == (None, None, ["choices"])


def test_memory_is_bounded_whatever_the_size() -> None:
    reader = BodyReader()
    reader.feed(b'{"output":[{"result":"')
    for _ in range(50):
        reader.feed(LARGE)
    assert reader._size < 2 * len(LARGE)
    assert not reader._pieces
    reader.feed(b'"}],%b}' % USAGE)
    found, _ = reader.finish([])
    assert found is not None
    assert found.usage is not None


@pytest.mark.parametrize("body", [b"oops", b"[1]", b"[" + LARGE, LARGE])
def test_what_is_no_object_is_reported(body: bytes) -> None:
    assert read(body) == (None, None, ["body"])


def test_null_is_no_item() -> None:
    assert read(msgspec.json.encode({"data": [None, {}]}))[1] == 1
