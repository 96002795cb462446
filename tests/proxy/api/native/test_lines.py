"""JSON lines are cut at line feeds, however they are split."""

import pytest

from proxy.api.native.lines import LineSplitter
from proxy.api.sse import MAX_EVENT_BYTES


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_any_split_gives_the_same_lines(piece: int) -> None:
    splitter, data = LineSplitter(), b'{"a":1}\n\n{"b":2}\r\n{"c"'
    found = [line for at in range(0, len(data), piece) for line in splitter.feed(data[at : at + piece])]
    assert (found, splitter.rest) == ([b'{"a":1}', b"", b'{"b":2}\r'], b'{"c"')


def test_a_line_without_end_is_released_in_pieces() -> None:
    splitter, data = LineSplitter(), b"x" * (MAX_EVENT_BYTES + 1)
    assert splitter.feed(data) == [data]
    assert splitter.rest == b""
