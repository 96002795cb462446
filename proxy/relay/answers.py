"""Answers: what the proxy reads of a backend's answer, and what it may add to it."""

from typing import Final

import msgspec

from proxy.core.sse import data_of
from proxy.relay.bodies import TEXT_LENGTH, answered, count_of, has_token
from proxy.relay.fields import AnswerBody, Inner, Usage

DONE: Final = b"[DONE]"
_REASONS: Final = 128  # as many as an answer may have choices
_OUTPUT_TYPES: Final[tuple[str, ...]] = (
    "response.output_text.delta",
    "response.reasoning_text.delta",
    "response.function_call_arguments.delta",
    "content_block_delta",
)


class Reading:
    """What was read of one answer so far; ``items``: of its ``data`` (images, embeddings)."""

    __slots__ = (
        "cached_tokens", "counted", "finish_reasons", "items", "model", "output_tokens", "prompt_tokens",
        "response_id",
    )  # fmt: skip

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.model: str | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self.finish_reasons: list[str] = []
        self.counted = 0  # output tokens so far
        self.items: int | None = None

    def read_event(self, event: bytes) -> tuple[int, bool]:
        """Take one streamed event: (new tokens in it, whether it is a chunk of usage alone)."""
        data = data_of(event)
        if data is None or data == DONE:
            return 0, False
        body = answered(data)
        if body is None:
            return 0, False
        tokens = self._read(body)
        alone = body.usage is not None and body.choices == []
        return tokens, alone

    def read_body(self, data: bytes) -> None:
        """Take a whole JSON answer."""
        body = answered(data)
        if body is not None:
            self._read(body)

    def _read(self, body: AnswerBody) -> int:
        self._name(body.id, body.model)
        self.items = len(body.data) if body.data is not None else self.items
        tokens = 0
        for choice in body.choices or ():
            tokens += has_token(choice)
            if choice.finish_reason and len(self.finish_reasons) < _REASONS:
                self.finish_reasons.append(choice.finish_reason[:TEXT_LENGTH])
        if body.type is not None:  # messages, responses
            if not body.choices and body.type in _OUTPUT_TYPES:
                tokens = 1
            for inner in (body.message, body.response):
                if isinstance(inner, Inner):
                    self._read_inner(inner, started=body.type == "message_start")
        usage = body.usage
        if usage is not None:
            tokens = self._read_usage(usage, tokens)
        self.counted += tokens
        return tokens

    def _name(self, response_id: str | None, model: str | None) -> None:
        """The first that is told counts; an empty one tells nothing."""
        if response_id and not self.response_id:
            self.response_id = response_id[:TEXT_LENGTH]
        if model and not self.model:
            self.model = model[:TEXT_LENGTH]

    def _read_inner(self, inner: Inner, *, started: bool) -> None:
        self._name(inner.id, inner.model)
        if inner.usage is not None:
            before = self.output_tokens
            self._read_usage(inner.usage, 0)
            if started:
                self.output_tokens = before  # the count at the start is no total

    def _read_usage(self, usage: Usage, tokens: int) -> int:
        first = count_of(usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens)
        total = count_of(
            usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
        )
        self.prompt_tokens = first if first is not None else self.prompt_tokens
        self.output_tokens = total if total is not None else self.output_tokens
        details = usage.prompt_tokens_details or usage.input_tokens_details
        cached = count_of(details.cached_tokens if details else usage.cache_read_input_tokens)
        self.cached_tokens = cached if cached is not None else self.cached_tokens
        if tokens and total is not None:
            return max(total - self.counted, 0)  # usage in every chunk says how many it holds
        return tokens


def error_body(message: str, code: str, kind: str = "proxy_error") -> bytes:
    """An error of the proxy itself, in OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def with_energy(body: bytes, energy: bytes) -> bytes:
    """A JSON object with a last field ``energy``; the bytes before it as they were."""
    end = body.rstrip().rfind(b"}")
    if end < 0 or not body.lstrip().startswith(b"{"):
        return body
    empty = body[:end].strip() == b"{"
    return body[:end].rstrip() + (b"" if empty else b",") + b'"energy":' + energy + body[end:]


def with_usage_energy(event: bytes, energy: bytes) -> bytes:
    """A usage chunk with ``usage.energy``; as it was where it has no usage object."""
    at = event.find(b'"usage":')
    start = event.find(b"{", at)
    if at < 0 or start < 0:
        return event
    rest = event[start + 1 :].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    return event[: start + 1] + b'"energy":' + energy + comma + event[start + 1 :]
