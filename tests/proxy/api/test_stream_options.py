"""Usage is asked for once, in valid JSON, and only where the client did not ask."""

import json
from typing import Any

import pytest

from proxy.api.fields import REQUEST
from proxy.api.stream_options import asks_for_usage, refused, with_usage
from tests.proxy.api.test_edit import once


def changed(body: bytes) -> Any:
    read = REQUEST.decode(body, [])
    assert read is not None
    made = with_usage(body, bytes(read.stream_options))
    return None if made is None else json.loads(made, object_pairs_hook=once)


@pytest.mark.parametrize(
    "options",
    [
        b"",
        b',"stream_options":null',
        b',"stream_options":{}',
        b',"stream_options" : { "include_usage" : null }',
        b',"stream_options":{"include_usage":false}',
        b',"stream_options":null,"stream_options":null',
        b',"stream_options":{"include_usage":true},"stream_options":null',
        rb',"stream\u005foptions":null',
        b',"stream_options":{"continuous_usage_stats":true}',
    ],
)
def test_usage_is_asked_for_with_each_key_once(options: bytes) -> None:
    made = changed(b'{"stream":true%b,"x":"stream_options"}' % options)
    assert made == {"stream": True, "stream_options": {"include_usage": True}, "x": "stream_options"}


def test_other_options_are_kept() -> None:
    made = changed(b'{"stream_options":{"include_obfuscation":false,"include_usage":false}}')
    assert made == {"stream_options": {"include_usage": True, "include_obfuscation": False}}


def test_a_look_alike_within_a_value_is_not_the_option() -> None:
    made = changed(b'{"metadata":{"stream_options":null},"stream":true}')
    assert made["metadata"] == {"stream_options": None}
    assert made["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("options", [b"[]", b'"x"', b"5", b"true"])
def test_options_of_another_type_are_left_to_the_backend(options: bytes) -> None:
    assert changed(b'{"stream_options":%b}' % options) is None


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (b"", False),
        (b"null", False),
        (b"{}", False),
        (b"[]", False),
        (b'{"include_usage":false}', False),
        (b'{"include_usage":true}', True),
        (b'{"include_usage":"true","x":NaN}', True),
    ],
)
def test_whether_the_client_asks(options: bytes, asks: bool) -> None:
    assert asks_for_usage(options) == asks


def test_a_refusal_names_the_option() -> None:
    assert refused(b'{"error":{"message":"Unknown parameter: \'stream_options\'"}}')
    assert not refused(b'{"error":{"message":"messages: Field required"}}')
