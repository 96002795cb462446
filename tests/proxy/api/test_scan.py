"""Members of JSON objects are found in pieces of any size, whatever the values hold."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.scan import Scanner, items, members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\{}[],:\u00e9', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\,:}é', max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "data", "usage"]), JSON),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_members_are_the_values_of_the_document_whatever_the_split(document: object, cuts: list[int]) -> None:
    data = msgspec.json.encode(document)
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    scanner = Scanner()
    for a, b in pairwise(edges):
        scanner.feed(data[a:b])
    assert scanner.complete
    assert {key.decode(): msgspec.json.decode(raw) for key, raw in scanner.members.items()} == document


@given(st.lists(JSON.filter(lambda value: value is not None), max_size=5))
def test_items_are_the_values_of_an_array(document: list[object]) -> None:
    found = items(msgspec.json.encode(document))
    assert found is not None
    assert [msgspec.json.decode(raw) for raw in found] == document


@given(st.lists(st.integers(1, 7), max_size=30))
def test_items_of_an_array_are_counted_and_not_kept(cuts: list[int]) -> None:
    data = b'{"data": [ {"b64":"[{\\"", "e":[1,[2]]}, [[3]], "x,y" ], "usage":{"n":[1]}, "more":[]}'
    scanner = Scanner(frozenset((b"usage",)), frozenset((b"data", b"more")))
    at = 0
    for cut in [*cuts, len(data)]:
        scanner.feed(data[at : at + cut])
        at += cut
    assert scanner.counts == {b"data": 3, b"more": 0}
    assert scanner.members == {b"usage": b'{"n":[1]}'}


def test_a_value_over_the_limit_is_named_and_not_kept() -> None:
    scanner = Scanner(max_value_bytes=10)
    for piece in (b'{"choices":[', b'"' + b"x" * 50 + b'"', b'],"usage":{"a":1}}'):
        scanner.feed(piece)
    assert (scanner.members, scanner.too_long) == ({b"usage": b'{"a":1}'}, {b"choices"})


@pytest.mark.parametrize(
    "odd",
    [
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b'"\xff"',
        b'"line\nend"',
        b"[" * 50_000 + b"]" * 50_000,
        b"tru",
        b"[1,,]",
        b"",
    ],
)
def test_a_value_that_no_parser_takes_does_not_hide_its_neighbours(odd: bytes) -> None:
    found = members(b'\xef\xbb\xbf {"x":1,"odd":' + odd + b',"model":"m"}')
    assert found is not None
    assert (found[b"x"], found[b"model"]) == (b"1", b'"m"')


def test_of_a_duplicate_member_the_last_wins() -> None:
    assert members(b'{"a":1,"a":{"b":2}}') == {b"a": b'{"b":2}'}


def test_an_escaped_name_is_the_same_name() -> None:
    assert members(b'{"mod\\u0065l":1}') == {b"model": b"1"}


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"7", b'"{}"', b"{"])
def test_what_is_no_object_has_no_members(data: bytes) -> None:
    assert members(data) is None


def test_members_before_a_cut_are_kept_and_the_torn_one_is_not() -> None:
    assert members(b'{"id":"r","usage":{"n":12') == {b"id": b'"r"'}
    assert members(b'{"id":"r","n":12') == {b"id": b'"r"'}
