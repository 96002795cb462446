"""Ollama's generation, chat and embeddings, in their documented shapes."""

import msgspec
import pytest

from proxy.api.endpoints import endpoint_of
from tests.proxy.api.native.test_dialect import read_complete, reading_of

DONE = {"model": "m", "created_at": "x", "done": True, "done_reason": "stop", "total_duration": 9}
COUNTS = {"prompt_eval_count": 26, "prompt_eval_duration": 5, "eval_count": 3, "eval_duration": 4}


@pytest.mark.parametrize(
    ("path", "output", "empty"),
    [
        ("/api/generate", {"response": " a"}, {"response": ""}),
        ("/api/generate", {"thinking": " a", "response": ""}, {"response": ""}),
        ("/api/chat", {"message": {"role": "assistant", "content": "a"}}, {"message": {"content": ""}}),
        ("/api/chat", {"message": {"content": "", "thinking": "a"}}, {"message": {"content": ""}}),
        ("/api/chat", {"message": {"content": "", "tool_calls": [{"function": {}}]}}, {}),
    ],
)
def test_lines_with_output_are_tokens_and_the_last_has_the_counts(
    path: str, output: dict[str, object], empty: dict[str, object]
) -> None:
    reading = reading_of(path)
    lines = [{"model": "m", **output, "done": False}] * 3 + [{**DONE, **empty, **COUNTS}]
    assert [reading.read_line(msgspec.json.encode(line)) for line in lines] == [1, 1, 1, 0]
    assert (reading.prompt_tokens, reading.output_tokens, reading.counted) == (26, 3, 3)
    assert (reading.model, reading.finish_reasons) == ("m", ["stop"])


def test_a_prompt_that_was_not_counted_is_not_known() -> None:
    reading = reading_of("/api/generate")
    read_complete(reading, {**DONE, "response": "a", "eval_count": 3})
    assert (reading.prompt_tokens, reading.cached_tokens, reading.output_tokens) == (None, None, 3)


def test_embeddings_have_the_tokens_of_their_prompts() -> None:
    reading = reading_of("/api/embed")
    read_complete(reading, {"model": "e", "embeddings": [[0.5]], "prompt_eval_count": 8})
    assert (reading.prompt_tokens, reading.output_tokens) == (8, None)


def test_a_request_that_does_not_mention_it_is_streamed() -> None:
    for path, streams in (("/api/chat", True), ("/api/generate", True), ("/api/embed", False)):
        endpoint = endpoint_of("POST", path)
        assert endpoint is not None
        assert endpoint.streams is streams
