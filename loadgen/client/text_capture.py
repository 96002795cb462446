"""Capture of response text for ``--tokenizer``: kept in memory until the end of the point, and no longer."""

import msgspec

from loadgen.client.responses import ResponseReader, StreamedResponse, parts_of
from proxy.api.fields import RESPONSE, Delta
from proxy.api.lenient import LenientDecoder
from proxy.api.sse import EventSplitter, data_of
from proxy.api.usage import TokenCounts


class _Part(msgspec.Struct):
    """A part of content that is given as a list."""

    text: str | None = None


_PART = LenientDecoder(_Part)


class TextCapture:
    """Wraps a reader and also keeps the body. It offers no template, since that would skip the text."""

    __slots__ = ("_body", "_inner")

    def __init__(self, inner: ResponseReader) -> None:
        self._inner = inner
        self._body: list[bytes] = []

    @property
    def first_ns(self) -> int | None:
        """When the first token arrived, as the wrapped reader reports it."""
        return self._inner.first_ns

    @property
    def outputs_ns(self) -> list[int]:
        """See ``ResponseReader``."""
        return self._inner.outputs_ns

    @property
    def counts(self) -> list[int]:
        """See ``ResponseReader``."""
        return self._inner.counts

    @property
    def usage(self) -> TokenCounts:
        """See ``ResponseReader``."""
        return self._inner.usage

    @property
    def unread(self) -> list[str]:
        """See ``ResponseReader``."""
        return self._inner.unread

    def feed(self, data: bytes, t_ns: int) -> None:
        """Pass the bytes to the wrapped reader and keep them."""
        self._inner.feed(data, t_ns)
        self._body.append(data)

    def template(self, data: bytes) -> None:
        """Return None, so that every read is parsed."""

    def outcome(self) -> str | None:
        """Return the outcome of the wrapped reader."""
        return self._inner.outcome()

    def text(self) -> str:
        """Return the text of the response, reasoning included."""
        body = b"".join(self._body)
        if not isinstance(self._inner, StreamedResponse):
            return _text_of(body)
        splitter = EventSplitter()
        found = []
        for event in [*splitter.feed(body.removeprefix(b"\xef\xbb\xbf")), splitter.rest]:
            data = data_of(event)
            if data is not None:
                found += [_text_of(part) for part in parts_of(data)]
        return "".join(found)


def _text_of(data: bytes) -> str:
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
