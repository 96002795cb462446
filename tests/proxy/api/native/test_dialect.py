"""Parts of responses are summed over the answers of a request."""

import msgspec

from proxy.api.endpoints import endpoint_of
from proxy.api.native.dialect import NativeCounts, Part
from proxy.relay.response.reading import Reading


def reading_of(path: str) -> Reading:
    """Return the reader of a response to a request to this path."""
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    return Reading(endpoint.dialects)


def event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def read_complete(reading: Reading, body: object) -> None:
    reader = reading.body_reader()
    reader.feed(msgspec.json.encode(body))
    reading.read_complete(reader)


def test_counts_are_known_when_those_of_all_answers_are() -> None:
    counts = NativeCounts()
    assert counts.update(Part(0, output=2, prompt=5)) == 2
    assert (counts.output, counts.prompt, counts.cached) == (2, 5, None)
    assert counts.update(Part(1, tokens=1)) == 1
    assert (counts.output, counts.prompt) == (None, None)
    assert counts.update(Part(1, output=4, prompt=5, cached=3)) == 3
    assert (counts.output, counts.prompt) == (6, 10)


def test_numbers_that_cannot_be_counts_are_not_known() -> None:
    counts = NativeCounts()
    assert counts.update(Part(0, output=-1, prompt=0, cached=7)) == 0
    assert (counts.output, counts.prompt) == (None, None)
    counts.update(Part(0, prompt=5))
    assert counts.cached is None, "more than the prompt"
    assert counts.update(Part(0, output=2**63)) == 0


def test_an_error_has_no_counts() -> None:
    for path in ("/generate", "/completion", "/api/chat"):
        reading = reading_of(path)
        read_complete(reading, {"error": {"message": "too long", "code": 400}})
        assert (reading.prompt_tokens, reading.output_tokens, reading.counted) == (None, None, 0)


def test_a_field_that_cannot_be_read_is_reported() -> None:
    reading = reading_of("/generate")
    reading.read_event(event({"text": "a", "meta_info": {"prompt_tokens": "many", "completion_tokens": 1}}))
    assert (reading.prompt_tokens, reading.counted) == (None, 1)
    assert reading.unread == ["meta_info.prompt_tokens"]


def test_a_response_that_is_not_gathered_keeps_its_counts() -> None:
    reading = reading_of("/api/embed")
    read_complete(
        reading, {"model": "e", "embeddings": [["x" * 1024] * 5000], "prompt_eval_count": 8, "n": "y" * 1024}
    )
    assert (reading.prompt_tokens, reading.model) == (8, "e")
