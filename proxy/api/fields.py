"""The fields that are read of JSON bodies of all APIs; all others are passed over unread.

Structs only: not compiled (setup.py), because msgspec finds the fields of its structs at run time. Every
field is optional and has a default; ``LenientDecoder`` relies on that.

Sources: OpenAI's OpenAPI document (chat completions, completions, responses, images, audio), Anthropic's
Messages API, and the protocol modules of vLLM, SGLang and llama.cpp, which serve these APIs with additions
of their own.
"""

from typing import Final

import msgspec

from proxy.api.lenient import LenientDecoder

MAX_TEXT_LENGTH: Final = 500  # of a name that is kept in records, which are in memory; a body may hold any


class StreamOptions(msgspec.Struct, gc=False):
    """Options of a streamed response."""

    include_usage: bool | None = None


class RequestBody(msgspec.Struct, gc=False):
    """Fields of a request body; ``stream_options`` and the parts of the prompt as text, empty if absent.

    ``tools``, ``system``, ``instructions``, ``messages``, ``prompt`` and ``input`` are the prompt, in the
    order in which chat templates write them.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: msgspec.Raw = msgspec.Raw()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None  # responses
    n_predict: int | None = None  # llama.cpp
    n: int | None = None  # answers in one request
    best_of: int | None = None  # sequences that are computed for these, of completions
    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class TokenDetails(msgspec.Struct, gc=False):
    """``prompt_tokens_details`` (chat), ``input_tokens_details`` (responses)."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts under the names of all providers; ``usage.TokenCounts`` says what they mean."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    input_tokens_details: TokenDetails | None = None
    cache_read_input_tokens: int | None = None  # Anthropic
    cache_creation_input_tokens: int | None = None  # Anthropic
    cached_tokens: int | None = None  # Moonshot
    prompt_cache_hit_tokens: int | None = None  # DeepSeek


class FunctionCall(msgspec.Struct, gc=False):
    """The legacy ``function_call`` of chat."""

    name: str | None = None
    arguments: str | None = None


class Audio(msgspec.Struct, gc=False):
    """Spoken output of chat."""

    data: str | None = None
    transcript: str | None = None


class Delta(msgspec.Struct, gc=False):
    """Output of a chat choice: the new part of a stream (``delta``) or all of it (``message``)."""

    role: str | None = None
    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[msgspec.Raw] | None = None  # OpenRouter
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    function_call: FunctionCall | None = None
    audio: Audio | None = None
    images: list[msgspec.Raw] | None = None  # OpenRouter


class Choice(msgspec.Struct, gc=False):
    """A choice of a response or of a streamed chunk."""

    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class EventDelta(msgspec.Struct, gc=False):
    """``delta`` of an event of the Messages API."""

    type: str | None = None
    stop_reason: str | None = None


class InnerResponse(msgspec.Struct, gc=False):
    """The response in an event: ``message`` of ``message_start``, ``response`` of ``response.completed``."""

    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class ResponseError(msgspec.Struct, gc=False):
    """An error reported by the server."""

    message: str | None = None
    type: str | None = None
    code: str | None = None


class ResponseBody(msgspec.Struct, gc=False):
    """A response, or the data of one streamed event, of any API."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    data: list[msgspec.Raw] | None = None
    type: str | None = None
    message: InnerResponse | str | None = None
    response: InnerResponse | str | None = None
    delta: EventDelta | str | None = None
    stop_reason: str | None = None
    error: ResponseError | str | None = None


class Model(msgspec.Struct, gc=False):
    """One entry of a list of models."""

    id: str | None = None


class ModelList(msgspec.Struct, gc=False):
    """``GET /v1/models``."""

    data: list[msgspec.Raw] | None = None


REQUEST: Final = LenientDecoder(RequestBody)
STREAM_OPTIONS: Final = LenientDecoder(StreamOptions)
RESPONSE: Final = LenientDecoder(ResponseBody)
MODEL: Final = LenientDecoder(Model)
MODEL_LIST: Final = LenientDecoder(ModelList)
