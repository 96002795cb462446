"""JSON bodies of requests and of answers: what they say, as far as the proxy must know."""

from typing import Final

import msgspec

from proxy.core.events import MOST
from proxy.relay.fields import ANSWER, ASKED, AnswerBody, Asked, Choice

TEXT_LENGTH: Final = 500  # of a name in records, which are kept in memory; a body may say anything

_NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # the last of a thousand brackets


def asked(body: bytes) -> Asked:
    """What the body asks for; defaults where it is not the JSON of a request (the backend judges that)."""
    try:
        return ASKED.decode(body)
    except _NO_JSON:
        return Asked()


def answered(data: bytes) -> AnswerBody | None:
    """What an answer, or a streamed event, says; None where it is not the JSON of one."""
    try:
        return ANSWER.decode(data)
    except _NO_JSON:
        return None


def has_token(choice: Choice) -> bool:
    """Whether a chunk's choice carries output.

    A ``role`` chunk does not; special tokens come as chunks of empty ``content`` (seen from vLLM).
    """
    delta = choice.delta
    if delta is None:
        return choice.text is not None
    if delta.content is not None and delta.role is None:
        return True
    return bool(delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)


def count_of(number: int | None) -> int | None:
    """A number of tokens; None for one that no record holds: the meter would refuse what is told with it."""
    return number if number is not None and 0 <= number <= MOST else None
