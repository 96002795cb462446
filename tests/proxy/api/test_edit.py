"""One member of a JSON object is changed, and no other byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.edit import add_first, as_utf8, members_but, replace_member


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys))
    return dict(pairs)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (b'{"a":null}', b'{"a":1}'),
        (b'{"a":null,"b":2}', b'{"a":1,"b":2}'),
        (b' { "b" : [ "}" ] , "a" : { } }\n', b' { "b" : [ "}" ] , "a" : 1 }\n'),
        (b"{}", b'{"a":1}'),
        (b'{"b":2}', b'{"a":1,"b":2}'),
        (b'{"b":{"a":null}}', b'{"a":1,"b":{"a":null}}'),
        (rb'{"b":"\"a\":null"}', rb'{"a":1,"b":"\"a\":null"}'),
        (b'{"a":0,"b":2,"a":0}', b'{"b":2,"a":1}'),
        (b'{"a":0,"a":0,"a":0,"b":2}', b'{"a":1,"b":2}'),
        (rb'{"\u0061":null}', rb'{"\u0061":1}'),
        (b'\xef\xbb\xbf{"a":null}', b'\xef\xbb\xbf{"a":1}'),
        (b'{"a":null,"b":NaN,"c":"\\ud83d","d":1.10}', b'{"a":1,"b":NaN,"c":"\\ud83d","d":1.10}'),
        (b'{"a":null,"b":"\xff"}', b'{"a":1,"b":"\xff"}'),
    ],
)  # fmt: skip
def test_a_member_is_replaced_or_added(text: bytes, changed: bytes) -> None:
    assert replace_member(text, "a", b"1") == changed


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"a":null', b'{"a":null} x', b'{"a"}', b"{,}", b'{"a":1,}', b'{"b":"', b'{"a"::1}'],
)  # fmt: skip
def test_what_is_not_an_object_is_not_changed(text: bytes) -> None:
    assert replace_member(text, "a", b"1") is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", '"', "\\", "é", ""]), values), st.sampled_from([None, 1]))
def test_any_object_keeps_its_other_members(given: dict[str, Any], indent: int | None) -> None:
    changed = replace_member(json.dumps(given, indent=indent).encode(), "a", b"[1]")
    assert changed is not None
    assert json.loads(changed, object_pairs_hook=once) == {**given, "a": [1]}


def test_a_member_is_added_first() -> None:
    assert add_first(b' {"b":2}', b'"a":1') == b' {"a":1,"b":2}'
    assert add_first(b"[]", b'"a":1') is None


def test_members_without_some() -> None:
    assert members_but(b'{"a":1, "b" : [2] ,"c":{"a":3}}', frozenset("a")) == [b'"b" : [2]', b'"c":{"a":3}']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_become_utf_8(encoding: str) -> None:
    assert json.loads(as_utf8('{"a":"é"}'.encode(encoding))) == {"a": "é"}


def test_what_has_no_encoding_stays_as_it_is() -> None:
    assert as_utf8(b"\0\0\0") == b"\0\0\0"
    assert as_utf8(b"\xef\xbb\xbf{}") == b"\xef\xbb\xbf{}"
