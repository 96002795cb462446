"""openai-python sees the same through the proxy as from vLLM itself."""

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.engines.vllm import NAME

PROMPT = "Where do the joules go?"
MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": PROMPT}]
FULL_LENGTH = {"ignore_eos": True}

# The template puts <|user|> before and <|end|>, <|assistant|> after; the tokenizer is one token a character.
PROMPT_TOKENS = len(PROMPT) + 3


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=NAME, messages=MESSAGES, max_tokens=12, seed=1, extra_body=FULL_LENGTH
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 12)


def test_a_chat_stream_ends_with_the_requested_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=NAME,
            messages=MESSAGES,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=FULL_LENGTH,
        )
    )
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (PROMPT_TOKENS, 12)
    assert chunks[-1].choices == []
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1])


def test_chat_stream_without_usage_has_a_choice_in_each_chunk(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=MESSAGES, max_tokens=12, stream=True, extra_body=FULL_LENGTH
        )
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=NAME,
        messages=MESSAGES,
        max_tokens=12,
        stream_options={"include_usage": True},
        extra_body=FULL_LENGTH,
    ) as stream:
        for _ in stream:
            pass
        final = stream.current_completion_snapshot
    assert final.usage is not None
    assert final.usage.completion_tokens == 12


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt="joule", max_tokens=7, extra_body=FULL_LENGTH)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 7)


def test_completions_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=NAME, prompt="joule", max_tokens=7, stream=True, extra_body=FULL_LENGTH
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks)  # special tokens have no text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]


def test_embeddings_of_a_model_that_generates_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=NAME, input="joule")


def test_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="other", messages=MESSAGES)


def test_wrong_key(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
