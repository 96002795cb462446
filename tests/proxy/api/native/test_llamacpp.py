"""llama.cpp's own completions: counts by event, prompt and its cached part."""

from pathlib import Path

import msgspec
import pytest

from proxy.relay.response.reading import Reading
from tests.proxy.api.native.test_dialect import event, read_complete, reading_of

FINAL = {
    "index": 0,
    "content": "",
    "id_slot": 0,
    "stop": True,
    "model": "m.gguf",
    "tokens_predicted": 5,
    "tokens_evaluated": 42,
    "stop_type": "limit",
    "tokens_cached": 46,
    "timings": {"cache_n": 40, "prompt_n": 2, "prompt_ms": 9.5, "predicted_n": 5},
}
CAPTURES = Path(__file__).parents[5] / "shared" / "engines" / "llamacpp_raw"


def part(predicted: int, content: str = " a", index: int = 0) -> bytes:
    body = {"index": index, "content": content, "tokens": [7], "stop": False, "id_slot": 0}
    return event({**body, "tokens_predicted": predicted, "tokens_evaluated": 42})


def test_each_event_has_the_tokens_that_are_new_in_it() -> None:
    reading = reading_of("/completion")
    # text that may begin a stop word is held back and comes with the next token
    tokens = [reading.read_event(one)[0] for one in (part(1), part(2), part(4), event(FINAL))]
    assert tokens == [1, 1, 2, 1]
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (42, 40, 5)
    assert (reading.model, reading.finish_reasons) == ("m.gguf", ["limit"])


def test_a_complete_response_has_its_counts() -> None:
    reading = reading_of("/infill")
    read_complete(reading, FINAL)
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (42, 40, 5)
    assert reading.counted == 0


def test_the_cached_part_of_servers_without_cache_n_is_what_was_not_processed() -> None:
    reading = reading_of("/completion")
    read_complete(reading, {**FINAL, "timings": {"prompt_n": 2}})
    assert reading.cached_tokens == 40
    reading = reading_of("/completion")
    read_complete(reading, {**FINAL, "timings": None})
    assert (reading.cached_tokens, reading.prompt_tokens) == (None, 42), "the length of the cache is no part"


def test_an_array_of_prompts_is_the_sum_of_its_answers() -> None:
    reading = reading_of("/completion")
    read_complete(reading, [FINAL, {**FINAL, "index": 1, "tokens_predicted": 3}])
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (84, 80, 8)
    reading = reading_of("/completion")
    tokens = [reading.read_event(one)[0] for one in (part(1), part(1, index=1), part(2), part(2, index=1))]
    assert tokens == [1, 1, 1, 1]


def test_its_compatible_responses_on_the_same_path_are_read() -> None:
    reading = reading_of("/completion")
    read_complete(
        reading, {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    )
    assert (reading.prompt_tokens, reading.output_tokens) == (3, 2)


def test_a_captured_chat_has_its_counts() -> None:
    capture = CAPTURES / "llama_server_nonstream.txt"
    if not capture.exists():
        pytest.skip(f"no capture of a real llama.cpp server at {capture}")
    body = msgspec.json.decode(capture.read_bytes().partition(b"\r\n\r\n")[2])
    reading = Reading()
    read_complete(reading, body)
    usage = body["usage"]
    assert (reading.prompt_tokens, reading.output_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
