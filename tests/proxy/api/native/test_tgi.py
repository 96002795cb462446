"""Text Generation Inference's own generation, in its documented shapes."""

import pytest

from tests.proxy.api.native.test_dialect import event, read_complete, reading_of


def token(index: int, **more: object) -> bytes:
    one = {"id": 7, "text": " a", "logprob": -0.5, "special": False}
    return event({"index": index, "token": one, "generated_text": None, "details": None, **more})


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_each_event_is_a_token_and_the_last_has_the_counts(path: str) -> None:
    reading = reading_of(path)
    details = {"finish_reason": "length", "generated_tokens": 3, "input_length": 5, "seed": None}
    last = token(3, generated_text="a a a", details=details)
    assert [reading.read_event(one)[0] for one in (token(1), token(2), last)] == [1, 1, 1]
    assert (reading.prompt_tokens, reading.output_tokens, reading.finish_reasons) == (5, 3, ["length"])


def test_a_complete_response_has_its_counts_in_details() -> None:
    reading = reading_of("/generate")
    details = {"finish_reason": "eos_token", "generated_tokens": 3, "prefill": [{"id": 1}, {"id": 2}]}
    read_complete(reading, {"generated_text": "a", "details": details})
    assert (reading.prompt_tokens, reading.output_tokens) == (2, 3)


def test_a_response_without_details_has_its_counts_in_the_headers() -> None:
    reading = reading_of("/generate")
    reading.read_headers({b"x-prompt-tokens": b"5", b"x-generated-tokens": b"3"})
    read_complete(reading, {"generated_text": "a"})
    assert (reading.prompt_tokens, reading.output_tokens) == (5, 3)


@pytest.mark.parametrize("given", [b"", b"-1", b"many", b"9" * 40])
def test_headers_that_are_no_numbers_are_not_read(given: bytes) -> None:
    reading = reading_of("/generate")
    reading.read_headers({b"x-prompt-tokens": given, b"x-generated-tokens": b"3"})
    read_complete(reading, {"generated_text": "a"})
    assert (reading.prompt_tokens, reading.output_tokens) == (None, None)
