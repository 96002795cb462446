"""Answers whose text a tokenizer will count: kept in memory until the end of their point, and no longer."""

import msgspec

from loadgen.client.responses import Answer, StreamAnswer, parts_of
from proxy.api.fields import RESPONSE, Delta
from proxy.api.lenient import LenientDecoder
from proxy.api.sse import EventSplitter, data_of
from proxy.api.usage import TokenCounts


class _Part(msgspec.Struct):
    """A part of content that is given as a list."""

    text: str | None = None


_PART = LenientDecoder(_Part)


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
    def usage(self) -> TokenCounts:
        """Of the inner answer."""
        return self._inner.usage

    @property
    def unread(self) -> list[str]:
        """Of the inner answer."""
        return self._inner.unread

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
        """Return what was said, reasoning included; of a stream, or of a whole answer."""
        body = b"".join(self._body)
        if not isinstance(self._inner, StreamAnswer):
            return _said(body)
        splitter = EventSplitter()
        found = []
        for event in [*splitter.feed(body.removeprefix(b"\xef\xbb\xbf")), splitter.rest]:
            data = data_of(event)
            if data is not None:
                found += [_said(part) for part in parts_of(data)]
        return "".join(found)


def _said(data: bytes) -> str:
    body = RESPONSE.decode(data, [])
    if body is None:  # [DONE], or reported as an error elsewhere
        return ""
    found = []
    for choice in body.choices or ():
        for one in (choice.delta, choice.message):
            if one is not None:
                found += [one.reasoning_content or one.reasoning or "", _content(one)]
        found.append(choice.text or "")
    return "".join(found)


def _content(delta: Delta) -> str:
    if delta.content is None or isinstance(delta.content, str):
        return delta.content or ""
    parts = (_PART.decode(bytes(raw), []) for raw in delta.content)
    return "".join(part.text or "" for part in parts if part is not None)
