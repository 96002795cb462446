"""Parse the requests of clients as vLLM does, with its error messages (v0.32, captured)."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec

from proxy.simulator.engine.batching import BLOCK

_B = TypeVar("_B", bound=msgspec.Struct)
DEFAULT_TOKENS: Final = 128
MOST_CHOICES: Final = 128


class RefusedError(Exception):
    """An answer with an error status, in vLLM's shape."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param

    @classmethod
    def value(cls, message: str, param: str, value: object) -> "RefusedError":
        """Return the error for a value out of range."""
        return cls(400, f"{message} (parameter={param}, value={value})", "BadRequestError", param)

    @classmethod
    def invalid(cls, detail: str, param: str | None) -> "RefusedError":
        """Return the error for a body that does not match the schema."""
        return cls(400, f"1 validation error:\n  {detail}", "Bad Request", param)

    def body(self) -> bytes:
        """Return the error as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


BUSY: Final = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens of a prompt, as this server counts them, its full blocks' hashes, and the tokens after them."""

    tokens: int
    chain: tuple[Hashable, ...]
    rest: tuple[Hashable, ...] = ()

    def answered(self, words: Sequence[Hashable]) -> tuple[Hashable, ...]:
        """Return the hashes of its full blocks with these tokens appended: the prefix of the next turn."""
        return chained([*self.rest, *words], self.chain)


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request that can be served: each prompt is answered ``choices`` times with ``tokens`` tokens."""

    chat: bool
    prompts: tuple[Prompt, ...]
    choices: int
    tokens: int
    reason: str  # why an answer ends: "length", or "stop" where the client set no limit
    stream: bool
    include_usage: bool
    continuous_usage: bool
    temperature: float = 1.0
    top_p: float = 1.0
    base64: bool = False  # embeddings: packed floats instead of numbers


class _Message(msgspec.Struct):
    role: str = "user"
    content: str | list[dict[str, Any]] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[_Message] | None = None
    prompt: str | list[str | int | list[int]] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None


def read(raw: bytes, content_type: str, *, chat: bool, model: str, longest: int) -> TextRequest:
    """Parse the request in a body.

    Args:
        raw: The body.
        content_type: Its ``Content-Type``.
        chat: Whether it is a chat completion.
        model: Name of the served model.
        longest: Limit of prompt and output tokens together.

    Raises:
        RefusedError: with the response of vLLM.
    """
    body = _decoded(raw, content_type, _Body)
    if chat and body.messages is None:
        raise RefusedError.invalid(_missing("messages", raw), "body.messages")
    _check_model(body.model, model)
    prompts = _prompts(body, chat=chat)
    max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    _check(body, max_tokens, longest)
    for prompt in prompts:
        _check_length(prompt.tokens, max_tokens or DEFAULT_TOKENS, longest)
    options = body.stream_options or _StreamOptions()
    return TextRequest(
        chat,
        prompts,
        body.n,
        DEFAULT_TOKENS if max_tokens is None else max_tokens,
        "stop" if max_tokens is None else "length",
        body.stream,
        options.include_usage,
        options.continuous_usage_stats,
        1.0 if body.temperature is None else body.temperature,
        1.0 if body.top_p is None else body.top_p,
    )


class _EmbeddingBody(msgspec.Struct):
    input: str | list[str | int | list[int]] | None = None
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"


def read_embeddings(raw: bytes, content_type: str, *, model: str, longest: int) -> TextRequest:
    """As ``read``, for ``/v1/embeddings``: prompts only, each computed once."""
    body = _decoded(raw, content_type, _EmbeddingBody)
    if body.input is None:
        raise RefusedError.invalid(_missing("input", raw), "body.input")
    _check_model(body.model, model)
    prompts = _given(body.input)
    for prompt in prompts:
        _check_length(prompt.tokens, 1, longest)
    packed = body.encoding_format == "base64"
    return TextRequest(False, prompts, 1, 1, "stop", False, False, False, base64=packed)


def _check_model(text_request: str | None, model: str) -> None:
    if text_request is not None and text_request != model:
        text = f"The model `{text_request}` does not exist. Valid aliases: {model}."
        raise RefusedError(404, text, "NotFoundError", "model")


def _decoded(raw: bytes, content_type: str, kind: type[_B]) -> _B:
    if content_type != "application/json":
        raise RefusedError.invalid("Unsupported Media Type: Only 'application/json' is allowed", None)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        place = "body" + where.rstrip("`")
        raise RefusedError.invalid(
            f"{{'type': 'value_error', 'loc': '{place}', 'msg': '{text}'}}", place
        ) from error
    except msgspec.DecodeError as error:
        raise _not_json(raw) from error


def _not_json(raw: bytes) -> RefusedError:
    place, reason = 0, "Expecting value"
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        place, reason = error.pos, error.msg
    except UnicodeDecodeError as error:
        place, reason = error.start, error.reason
    detail = (
        f"{{'type': 'json_invalid', 'loc': 'body.{place}', 'msg': 'JSON decode error', "
        f"'input': '<dict of 0 items>', 'ctx': {{'error': '{reason}'}}}}"
    )
    return RefusedError.invalid(detail, f"body.{place}")


def _missing(field: str, raw: bytes) -> str:
    items = len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
    return (
        f"{{'type': 'missing', 'loc': 'body.{field}', 'msg': 'Field required', "
        f"'input': '<dict of {items} items>'}}"
    )


def _check(body: _Body, max_tokens: int | None, longest: int) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise RefusedError.value(
            f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens
        )
    if max_tokens is not None and max_tokens > longest:
        text = f"max_tokens={max_tokens} cannot be greater than max_model_len={longest}."
        raise RefusedError.value(f"{text} Please request fewer output tokens.", "max_tokens", max_tokens)
    if body.temperature is not None and body.temperature < 0:
        text = f"temperature must be non-negative, got {body.temperature}."
        raise RefusedError.value(text, "temperature", body.temperature)
    if not 1 <= body.n <= MOST_CHOICES:
        raise RefusedError.value(f"n must be between 1 and {MOST_CHOICES}, got {body.n}.", "n", body.n)
    if body.stream_options is not None and not body.stream:
        text = "Stream options can only be defined when `stream=True`. (parameter=stream_options)"
        raise RefusedError(400, text, "BadRequestError", "stream_options")


def _check_length(prompt: int, max_tokens: int, longest: int) -> None:
    start = f"This model's maximum context length is {longest} tokens. However, "
    if prompt >= longest:
        text = (
            f"{start}your prompt contains at least {prompt} input tokens, which exceeds this limit even "
            "without any output tokens. Please reduce the length of the input prompt."
        )
        raise RefusedError.value(text, "input_tokens", prompt)
    if prompt + max_tokens > longest:
        text = (
            f"{start}you requested {max_tokens} output tokens and your prompt contains {prompt} input "
            f"tokens, for a total of {prompt + max_tokens} tokens. Please reduce the length of the input "
            "prompt or the number of requested output tokens."
        )
        raise RefusedError.value(text, "input_tokens", prompt)


def _prompts(body: _Body, *, chat: bool) -> tuple[Prompt, ...]:
    if chat:
        return (_prompt(_words_of(body.messages or [])),)
    given = body.prompt
    if given is None or given == []:
        text = "Either prompt or prompt_embeds must be provided and non-empty."
        raise RefusedError(400, text, "BadRequestError", "prompt")
    return _given(given)


def _given(given: str | list[str | int | list[int]]) -> tuple[Prompt, ...]:
    """One prompt or several, as text or as ids."""
    if isinstance(given, str):
        return (_prompt(given.split()),)
    several = [each for each in given if not isinstance(each, int)]
    if not several:
        return (_prompt(given),)
    return tuple(_prompt(each.split() if isinstance(each, str) else each) for each in several)


def _words_of(messages: list[_Message]) -> list[str]:
    words = []
    for message in messages:
        content = message.content
        parts = [content] if isinstance(content, str) else [str(p.get("text", "")) for p in content or []]
        words += [word for part in parts for word in part.split()]
    return words


def _prompt(tokens: list[Any]) -> Prompt:
    """Tokens: ids as given, else words apart from white space; an empty prompt has one."""
    chain = chained(tokens)
    return Prompt(max(len(tokens), 1), chain, tuple(tokens[len(chain) * BLOCK :]))


def chained(tokens: Sequence[Hashable], before: tuple[Hashable, ...] = ()) -> tuple[Hashable, ...]:
    """Return a hash for each full block of tokens, over all tokens up to its end, after ``before``."""
    chain = list(before)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        last = chain[-1] if chain else 0
        chain.append(hash((last, tuple(tokens[start : start + BLOCK]))))
    return tuple(chain)
