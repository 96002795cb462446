"""One odd field of a body does not void the others."""

import msgspec
import pytest

from proxy.api.fields import MODEL_LIST, REQUEST, RESPONSE, InnerResponse, RequestBody
from proxy.api.lenient import LenientDecoder

DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    "odd",
    [
        b'"max_tokens":16.0',
        b'"max_tokens":"16"',
        b'"max_tokens":"16.0"',
        b'"max_tokens":1.6e1',
        b'"max_tokens":16,"temperature":NaN',
        b'"max_tokens":16,"temperature":-Infinity',
        b'"max_tokens":16,"stop":' + DEEP,
        b'"max_tokens":16,"messages":[{"content":"\\ud83d"}]',
        b'"max_tokens":16,"messages":[{"content":"\xff\xfe"}]',
        b'"max_tokens":16,"messages":[{"content":"a\nb"}]',
        b'"max_tokens":3,"max_tokens":16.0',
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_request_with_an_odd_field_is_read(odd: bytes, mark: bytes) -> None:
    unread: list[str] = []
    body = REQUEST.decode(mark + b'{"model":"m",' + odd + b',"stream":true}', unread)
    assert body is not None
    assert (body.model, body.stream, body.max_tokens, unread) == ("m", True, 16, [])


@pytest.mark.parametrize(
    "odd", [b"NaN", b'"many"', b"7.5", b"{}", b"true", b"1e999", b"9" * 5000, b'"\\ud800"']
)
def test_what_is_no_count_is_reported_by_name(odd: bytes) -> None:
    unread: list[str] = []
    body = REQUEST.decode(b'{"max_tokens":' + odd + b',"model":"m"}', unread)
    assert (body, unread) == (RequestBody(model="m"), ["max_tokens"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [(b"1", True), (b"0", False), (b'"true"', True), (b'"False"', False), (b"null", None)],
)
def test_truth_values(given: bytes, meant: bool | None) -> None:
    assert REQUEST.decode(b'{"stream":%b,"x":NaN}' % given, []) == RequestBody(stream=meant)


def test_a_number_is_a_text_and_surrogates_are_replaced() -> None:
    unread: list[str] = []
    body = RESPONSE.decode(b'{"id":17,"model":"m\\ud800\xff","choices":[{"finish_reason":3}]}', unread)
    assert body is not None
    assert body.choices is not None
    assert (body.id, body.model, body.choices[0].finish_reason, unread) == ("17", "m\ufffd\ufffd", "3", [])
    msgspec.json.encode([body.id, body.model])


def test_names_of_nested_fields_are_dotted_and_without_indices() -> None:
    unread: list[str] = []
    body = RESPONSE.decode(
        b'{"id":"r","usage":{"prompt_tokens":7.0,"completion_tokens":{}},'
        b'"choices":[{"text":{}},3,{"text":"a"},{"text":[]}]}',
        unread,
    )
    assert body is not None
    assert body.usage is not None
    assert (body.usage.prompt_tokens, body.usage.completion_tokens) == (7, None)
    assert [choice.text for choice in body.choices or ()] == [None, "a", None]
    assert unread == ["choices.text", "choices", "choices.text", "usage.completion_tokens"]


def test_a_union_takes_the_type_that_fits() -> None:
    message = RESPONSE.decode(b'{"type":"message_start","message":{"id":3}}', [])
    text = RESPONSE.decode(b'{"message":"no such model","x":NaN}', [])
    assert message is not None
    assert text is not None
    assert (message.message, text.message) == (InnerResponse(id="3"), "no such model")


def test_null_is_nothing_to_read() -> None:
    unread: list[str] = []
    assert RESPONSE.decode(b"null", unread) is None
    assert RESPONSE.decode(b"", unread) is None
    assert RESPONSE.decode(b'{"choices":null,"usage":null,"x":NaN}', unread) == RESPONSE.decode(b"{}", [])
    assert unread == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b"oops"])
def test_what_is_no_object_is_reported_as_the_body(data: bytes) -> None:
    unread: list[str] = []
    assert RESPONSE.decode(data, unread) is None
    assert unread == ["body"]


def test_an_odd_item_of_a_list_is_left_out() -> None:
    body = MODEL_LIST.decode(b'{"data":[{"id":"a"},NaN,{"id":"b"}],"x":NaN}', [])
    assert body is not None
    assert [bytes(each) for each in body.data or ()] == [b'{"id":"a"}', b"NaN", b'{"id":"b"}']


def test_every_struct_that_is_decoded_can_be_empty() -> None:
    class Other(msgspec.Struct):
        share: float | None = None

    decoder = LenientDecoder(Other)
    assert decoder.decode(b"{}", []) == Other()
    assert decoder.decode(b'{"share":"0.5"}', []) == Other(0.5)
