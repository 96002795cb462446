"""Answers whose text a tokenizer will count: kept in memory until the end of their point, and no longer."""

from collections.abc import Sequence

import msgspec

from loadgen.answers import Answer
from loadgen.bodies import Choice, Delta, Usage


class _Choice(Choice):
    message: Delta | None = None  # of an answer that comes at once


class _Body(msgspec.Struct):
    choices: list[_Choice] = []


_DECODER = msgspec.json.Decoder(_Body)


class Spoken:
    """Another answer, and its body; every read is parsed, for a lane would pass over the text."""

    __slots__ = ("_body", "_inner")

    def __init__(self, inner: Answer) -> None:
        self._inner = inner
        self._body: list[bytes] = []

    @property
    def first_ns(self) -> int | None:
        """The inner answer's, as all that is asked but the text."""
        return self._inner.first_ns

    @property
    def outputs_ns(self) -> list[int]:
        """Of the inner answer."""
        return self._inner.outputs_ns

    @property
    def counts(self) -> list[int]:
        """Of the inner answer."""
        return self._inner.counts

    @property
    def usage(self) -> Usage | None:
        """Of the inner answer."""
        return self._inner.usage

    def feed(self, data: bytes, t_ns: int) -> None:
        """Hand on, and keep."""
        self._inner.feed(data, t_ns)
        self._body.append(data)

    def lane(self, data: bytes) -> None:
        """None: the text is wanted."""

    def outcome(self) -> str | None:
        """Of the inner answer."""
        return self._inner.outcome()

    def text(self) -> str:
        """What was said, reasoning included; of a stream, or of a whole answer."""
        body = b"".join(self._body)
        events = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:")]
        return "".join(_said(event) for event in events or [body])


def _said(data: bytes) -> str:
    try:
        choices: Sequence[_Choice] = _DECODER.decode(data).choices
    except (msgspec.MsgspecError, UnicodeDecodeError):  # [DONE], or told as an error elsewhere
        return ""
    found = []
    for choice in choices:
        for one in (choice.delta, choice.message):
            if one is not None:
                found += [one.reasoning_content or one.reasoning or "", one.content or ""]
        found.append(choice.text or "")
    return "".join(found)
