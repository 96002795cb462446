"""The fields that are read of JSON bodies, of requests and of answers; all else is passed over.

Not compiled (setup.py): msgspec finds the fields of its structs at run time.
"""

from typing import Final

import msgspec


class StreamOptions(msgspec.Struct, gc=False):
    """What a streamed answer is to hold."""

    include_usage: bool | None = None


class Asked(msgspec.Struct, gc=False):
    """What a request body says that the proxy must know; all else is passed over unread."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts, by the names of chat and completions, and of responses and messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None


class _Delta(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of an answer's, whole or a chunk of it."""

    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Inner(msgspec.Struct, gc=False):
    """What ``message_start`` (messages) and ``response.completed`` (responses) wrap."""

    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class AnswerBody(msgspec.Struct, gc=False):
    """An answer, or the data of one streamed event, of any route."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    data: list[msgspec.Raw] | None = None
    type: str | None = None
    message: Inner | str | None = None
    response: Inner | str | None = None


ASKED: Final = msgspec.json.Decoder(Asked)
ANSWER: Final = msgspec.json.Decoder(AnswerBody)
