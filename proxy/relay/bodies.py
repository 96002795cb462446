"""JSON bodies: the fields that are read of requests and of answers; all else is passed over.

Not compiled (setup.py): msgspec finds the fields of its structs at run time.
"""

from typing import Final

import msgspec

from proxy.core.events import MOST

TEXT_LENGTH: Final = 500  # of a name in records, which are kept in memory; a body may say anything


class StreamOptions(msgspec.Struct):
    """What a streamed answer is to hold."""

    include_usage: bool | None = None


class Asked(msgspec.Struct):
    """What a request body says that the proxy must know; all else is passed over unread."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts, by the names of chat and completions, and of responses and messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def has_token(self) -> bool:
        """Whether the chunk carries output.

        A ``role`` chunk does not; special tokens come as chunks of empty ``content`` (seen from vLLM).
        """
        delta = self.delta
        if delta is None:
            return self.text is not None
        if delta.content is not None and delta.role is None:
            return True
        return bool(delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)


class Inner(msgspec.Struct):
    """What ``message_start`` (messages) and ``response.completed`` (responses) wrap."""

    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class AnswerBody(msgspec.Struct):
    """An answer, or the data of one streamed event, of any route."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    data: list[msgspec.Raw] | None = None
    type: str | None = None
    message: Inner | str | None = None
    response: Inner | str | None = None


_ASKED: Final = msgspec.json.Decoder(Asked)
_ANSWER: Final = msgspec.json.Decoder(AnswerBody)


def count_of(number: int | None) -> int | None:
    """A number of tokens; None for one that no record holds: the meter would refuse what is told with it."""
    return number if number is not None and 0 <= number <= MOST else None


def asked(body: bytes) -> Asked:
    """What the body asks for; defaults where it is not the JSON of a request (the backend judges that)."""
    try:
        return _ASKED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Asked()


def answered(data: bytes) -> AnswerBody | None:
    """What an answer, or a streamed event, says; None where it is not the JSON of one."""
    try:
        return _ANSWER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
