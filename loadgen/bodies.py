"""JSON bodies of answers: the fields that are read; all else is passed over.

Not compiled (setup.py): msgspec finds the fields of its structs at run time.
"""

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # more fits into no record


class Usage(msgspec.Struct):
    """Token counts as the server reports them."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Delta(msgspec.Struct):
    """What a streamed choice adds."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class Choice(msgspec.Struct):
    """One of the answers that a chunk goes on with."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """The data of one event."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class Whole(msgspec.Struct):
    """An answer that comes at once."""

    usage: Usage | None = None
    data: list[msgspec.Raw] | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(Chunk)
_WHOLE = msgspec.json.Decoder(Whole)


def chunk_of(data: bytes) -> Chunk:
    """What an event says; raises ``ValueError`` (msgspec's) where it is none of the API."""
    return _CHUNK.decode(data)


def whole_of(data: bytes) -> Whole:
    """What an answer says; raises ``ValueError`` (msgspec's) where it is none of the API."""
    return _WHOLE.decode(data)
