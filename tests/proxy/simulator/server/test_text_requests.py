import json
from typing import Any

import pytest

from proxy.simulator.server.text_requests import DEFAULT_TOKENS, RefusedError, TextRequest, _prompt, read

USER = [{"role": "user", "content": "one two three"}]


def asked(body: dict[str, Any], *, chat: bool = True) -> TextRequest:
    raw = json.dumps({"model": "m", **body}).encode()
    return read(raw, "application/json", chat=chat, model="m", longest=2048)


def refused(
    body: dict[str, Any] | bytes, *, chat: bool = True, kind: str = "application/json"
) -> RefusedError:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    with pytest.raises(RefusedError) as caught:
        read(raw, kind, chat=chat, model="m", longest=2048)
    return caught.value


def test_prompts_are_counted_as_words_or_ids() -> None:
    assert asked({"messages": USER}).prompts[0].tokens == 3
    parts = [{"type": "text", "text": "a b"}, {"type": "image_url"}]
    assert asked({"messages": [{"role": "user", "content": parts}]}).prompts[0].tokens == 2
    for prompt, tokens in [("a b", [2]), ([1, 2, 3], [3]), (["a", "b c"], [1, 2]), ([[1], [2, 3]], [1, 2])]:
        assert [p.tokens for p in asked({"prompt": prompt}, chat=False).prompts] == tokens
    assert asked({"prompt": ""}, chat=False).prompts[0].tokens == 1


def test_blocks_of_the_same_beginning_have_the_same_hash() -> None:
    one, two = (asked({"prompt": [*range(40), end]}, chat=False).prompts[0] for end in (1, 2))
    assert one.chain == two.chain
    assert len(one.chain) == 2
    other = asked({"prompt": [9, *range(1, 40)]}, chat=False).prompts[0]
    assert other.chain[1] != one.chain[1], "a block's hash is of all text up to its end"


def test_an_answer_without_limit_stops() -> None:
    assert (asked({"messages": USER}).tokens, asked({"messages": USER}).reason) == (DEFAULT_TOKENS, "stop")
    limited = asked({"messages": USER, "max_tokens": 9, "max_completion_tokens": 5})
    assert (limited.tokens, limited.reason) == (5, "length")


def test_refusals_name_what_is_wrong() -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"messages": USER, "model": "x"}, 404, "model"),
        ({"messages": USER, "max_tokens": 0}, 400, "max_tokens"),
        ({"messages": USER, "max_completion_tokens": -1}, 400, "max_tokens"),
        ({"messages": USER, "max_tokens": 99_999}, 400, "max_tokens"),
        ({"messages": USER, "temperature": -3.0}, 400, "temperature"),
        ({"messages": USER, "n": 0}, 400, "n"),
        ({"messages": USER, "stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"messages": [{"role": "user", "content": "x " * 2048}]}, 400, "input_tokens"),
        ({"messages": [{"role": "user", "content": "x " * 2000}], "max_tokens": 100}, 400, "input_tokens"),
        ({}, 400, "body.messages"),
        ({"messages": 5}, 400, "body.messages"),
    ]
    for body, status, param in cases:
        error = refused(body)
        assert (error.status, error.param) == (status, param)
    assert refused({}, chat=False).param == "prompt"
    assert refused({"prompt": []}, chat=False).param == "prompt"
    assert refused(b"x", kind="text/plain").param is None
    assert refused(b'{"a": \xff}').status == 400


def test_broken_json_is_located() -> None:
    error = refused(b'{"model":')
    assert error.param == "body.9"
    assert "'Expecting value'" in error.message


def test_an_answered_prompt_has_the_chain_of_the_prompt_that_goes_on() -> None:
    first, answer = [str(n) for n in range(21)], ["a", "b", "c"] * 6
    begun, whole = _prompt(first), _prompt([*first, *answer, "next"])
    assert (len(begun.chain), begun.rest) == (1, ("16", "17", "18", "19", "20"))
    assert begun.answered(answer) == whole.chain[:2]
    assert begun.answered([]) == begun.chain
