"""What is read of answers of each API, and what is added to them."""

import msgspec
import pytest

from proxy.api.body import BodyReader
from proxy.relay.response.reading import CONTENT, USAGE_ALONE, Reading, with_energy, with_usage_energy


def event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def read_complete(reading: Reading, body: bytes) -> None:
    reader = BodyReader()
    reader.feed(body)
    reading.read_complete(reader)


def test_usage_of_messages_is_nested() -> None:
    reading = Reading()
    usage = {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 4}
    start = {"type": "message_start", "message": {"id": "m1", "model": "m", "usage": usage}}
    reading.read_event(event(start))
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (11, 4, None)
    assert reading.read_event(event({"type": "content_block_delta", "delta": {"text": "a"}})) == (1, CONTENT)
    reading.read_event(event({"type": "message_delta", "usage": {"output_tokens": 9}}))
    assert (reading.response_id, reading.model, reading.prompt_tokens, reading.output_tokens) == (
        "m1",
        "m",
        11,
        9,
    )


def test_usage_of_responses_is_nested() -> None:
    reading = Reading()
    usage = {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}
    done = {"type": "response.completed", "response": {"id": "r1", "model": "m", "usage": usage}}
    assert reading.read_event(event({"type": "response.output_text.delta", "delta": "x"})) == (1, CONTENT)
    reading.read_event(event(done))
    assert (reading.response_id, reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (
        "r1",
        5,
        3,
        2,
    )


def test_numbers_that_can_be_no_counts_are_not_known() -> None:
    reading = Reading()
    details = {"cached_tokens": 2**60}
    usage = {"prompt_tokens": -3, "completion_tokens": 2**63, "prompt_tokens_details": details}
    read_complete(reading, msgspec.json.encode({"id": "r1", "usage": usage}))
    assert (reading.prompt_tokens, reading.output_tokens, reading.cached_tokens) == (None, None, None)
    assert reading.response_id == "r1"


def test_what_records_keep_of_an_answer_is_bounded() -> None:
    reading = Reading()
    choices = [{"finish_reason": "stop" * 1000}] * 1000
    read_complete(
        reading, msgspec.json.encode({"id": "i" * 10_000, "model": "m" * 10_000, "choices": choices})
    )
    assert reading.response_id is not None
    assert reading.model is not None
    lengths = {len(text) for text in (reading.response_id, reading.model, *reading.finish_reasons)}
    assert (lengths, len(reading.finish_reasons)) == ({500}, 128)


def test_a_message_that_is_text_is_no_usage() -> None:
    reading = Reading()
    read_complete(reading, b'{"object":"error","message":"no such model","id":"e"}')
    assert (reading.response_id, reading.output_tokens) == ("e", None)


def test_energy_is_the_last_field() -> None:
    assert with_energy(b'{"a":1}\n', b"7") == b'{"a":1,"energy":7}\n'
    assert with_energy(b"{}", b"7") == b'{"energy":7}'
    assert with_energy(b"[1]", b"7") == b"[1]"
    assert with_energy(b'\xef\xbb\xbf{"a":1}', b"7") == b'\xef\xbb\xbf{"a":1,"energy":7}'
    assert with_usage_energy(b'data: {"usage":{}}\n\n', b"7") == b'data: {"usage":{"energy":7}}\n\n'


def test_bytes_that_are_no_text_are_replaced() -> None:
    reading = Reading()
    assert reading.read_event(b'data: {"id":"\xc3","choices":[{"text":"\xff"}]}\n\n') == (1, CONTENT)
    assert (reading.response_id, reading.counted) == ("\ufffd", 1)


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 0, "prompt_tokens": 0}, {"prompt_tokens": 5}])
@pytest.mark.parametrize(
    "choice", [{"text": "a"}, {"message": {"content": "a"}}, {"message": {"function_call": {"name": "f"}}}]
)
def test_output_tokens_of_a_complete_response_without_usage_are_not_known(
    usage: dict[str, int], choice: dict[str, object]
) -> None:
    reading = Reading()
    read_complete(reading, msgspec.json.encode({"choices": [choice], "usage": usage}))
    assert (reading.output_tokens, reading.counted) == (None, 0)


def test_usage_of_zero_before_the_output_is_no_count() -> None:
    reading = Reading()
    reading.read_event(event({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}))
    for _ in range(3):
        reading.read_event(event({"choices": [{"delta": {"content": "a"}}]}))
    assert (reading.prompt_tokens, reading.output_tokens, reading.counted) == (None, None, 3)


def test_usage_of_zero_in_every_chunk_does_not_hide_tokens() -> None:
    reading = Reading()
    zero = {"prompt_tokens": 0, "completion_tokens": 0}
    chunk = event({"choices": [{"delta": {"content": "a"}}], "usage": zero})
    assert [reading.read_event(chunk)[0] for _ in range(3)] == [1, 1, 1]
    assert reading.output_tokens is None


def test_usage_in_the_middle_is_no_total() -> None:
    reading = Reading()
    reading.read_event(event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}))
    for _ in range(3):
        reading.read_event(event({"choices": [{"delta": {"content": "a"}}]}))
    assert (reading.prompt_tokens, reading.output_tokens) == (9, 3)


@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
def test_a_chunk_of_usage_alone_has_no_choices_of_any_kind(choices: dict[str, None]) -> None:
    assert Reading().read_event(event({"usage": {"prompt_tokens": 9}, **choices})) == (0, USAGE_ALONE)


def test_an_answer_of_a_function_call_at_once_sets_the_first_token() -> None:
    reading = Reading()
    done = event({"type": "response.output_item.done", "item": {"type": "function_call"}})
    assert [reading.read_event(done)[0] for _ in range(2)] == [1, 0]
