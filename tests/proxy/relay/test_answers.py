"""What is read of answers of each API, and what is added to them."""

import msgspec

from proxy.relay.answers import Reading, with_energy, with_usage_energy


def event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def test_usage_of_messages_is_nested() -> None:
    reading = Reading()
    usage = {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 4}
    start = {"type": "message_start", "message": {"id": "m1", "model": "m", "usage": usage}}
    reading.read_event(event(start))
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (7, 4, None)
    assert reading.read_event(event({"type": "content_block_delta", "delta": {"text": "a"}})) == (1, False)
    reading.read_event(event({"type": "message_delta", "usage": {"output_tokens": 9}}))
    assert (reading.response_id, reading.model, reading.prompt_tokens, reading.output_tokens) == (
        "m1",
        "m",
        7,
        9,
    )


def test_usage_of_responses_is_nested() -> None:
    reading = Reading()
    usage = {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}
    done = {"type": "response.completed", "response": {"id": "r1", "model": "m", "usage": usage}}
    assert reading.read_event(event({"type": "response.output_text.delta", "delta": "x"})) == (1, False)
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
    reading.read_body(msgspec.json.encode({"id": "r1", "usage": usage}))
    assert (reading.prompt_tokens, reading.output_tokens, reading.cached_tokens) == (None, None, None)
    assert reading.response_id == "r1"


def test_what_records_keep_of_an_answer_is_bounded() -> None:
    reading = Reading()
    choices = [{"finish_reason": "stop" * 1000}] * 1000
    reading.read_body(msgspec.json.encode({"id": "i" * 10_000, "model": "m" * 10_000, "choices": choices}))
    assert reading.response_id is not None
    assert reading.model is not None
    lengths = {len(text) for text in (reading.response_id, reading.model, *reading.finish_reasons)}
    assert (lengths, len(reading.finish_reasons)) == ({500}, 128)


def test_a_message_that_is_text_is_no_usage() -> None:
    reading = Reading()
    reading.read_body(b'{"object":"error","message":"no such model","id":"e"}')
    assert (reading.response_id, reading.output_tokens) == ("e", None)


def test_energy_is_the_last_field() -> None:
    assert with_energy(b'{"a":1}\n', b"7") == b'{"a":1,"energy":7}\n'
    assert with_energy(b"{}", b"7") == b'{"energy":7}'
    assert with_energy(b"[1]", b"7") == b"[1]"
    assert with_usage_energy(b'data: {"usage":{}}\n\n', b"7") == b'data: {"usage":{"energy":7}}\n\n'


def test_an_answer_of_bytes_that_are_no_text_is_passed_over() -> None:
    reading = Reading()
    assert reading.read_event(b'data: {"id":"\xc3"}\n\n') == (0, False)
    reading.read_body(b'{"id":"\xff"}')
    assert (reading.response_id, reading.counted) == (None, 0)
