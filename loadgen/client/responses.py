# Compiled by mypyc: see setup.py.
"""Readers of response bodies of an OpenAI-compatible server: when tokens arrived, and how many.

Sans-I/O: the connection feeds bytes with the stamp of their read, and requests the outcome at the end. No
text is kept. Events and bodies are interpreted by :mod:`proxy.api`. Fields that cannot be decoded are
counted by name in ``unread``; they do not invalidate the fields beside them.
"""

from typing import Final, Protocol

import msgspec

from loadgen.client.chunk_template import ChunkTemplate, learn_template
from proxy.api.fields import RESPONSE, ResponseBody
from proxy.api.sse import DONE, EventSplitter, data_of
from proxy.api.tokens import choice_has_output
from proxy.api.usage import TokenCounts

_BOM: Final = b"\xef\xbb\xbf"
_MAX_MESSAGE: Final = 200  # characters of a server's error message that a record keeps


class ResponseReader(Protocol):
    """Reads the body of one successful response."""

    @property
    def first_ns(self) -> int | None:
        """When the first token arrived, monotonic nanoseconds; None without tokens or if not streamed."""

    @property
    def outputs_ns(self) -> list[int]:
        """Arrival time of each read with tokens, monotonic nanoseconds."""

    @property
    def counts(self) -> list[int]:
        """Number of chunks with a token in each of these reads."""

    @property
    def usage(self) -> TokenCounts:
        """Token counts as reported by the server; None where it reports none."""

    @property
    def unread(self) -> list[str]:
        """Names of fields that were present and could not be decoded, once for each occurrence."""

    def feed(self, data: bytes, t_ns: int) -> None:
        """Read the next bytes of the body, which arrived at ``t_ns``."""

    def template(self, data: bytes) -> ChunkTemplate | None:
        """Return a template for reads like ``data``, the complete chunk that was fed last.

        None if it has none.
        """

    def outcome(self) -> str | None:
        """Return None for a complete response, else its error. Called once, after the last ``feed``."""


class StreamedResponse:
    """Reader of server-sent events, each of which is one chunk as JSON."""

    __slots__ = (
        "_ended", "_error", "_events", "_first", "_last_ns", "_malformed", "counts", "first_ns", "outputs_ns",
        "unread", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.outputs_ns: list[int] = []
        self.counts: list[int] = []
        self.usage = TokenCounts()
        self.unread: list[str] = []
        self._events = EventSplitter()
        self._first = True  # no event so far
        self._last_ns = 0
        self._ended = False
        self._malformed = False  # some data was not a JSON object
        self._error: str | None = None

    def feed(self, data: bytes, t_ns: int) -> None:
        """Read every complete event in the bytes."""
        self._last_ns = t_ns
        for event in self._events.feed(data):
            self._event(event, t_ns)

    def _event(self, event: bytes, t_ns: int) -> None:
        if self._first:
            self._first = False
            event = event.removeprefix(_BOM)
        data = data_of(event)
        if data is None:
            return
        if b"\n" in data:
            for part in parts_of(data):
                self._data(part, t_ns)
        else:
            self._data(data, t_ns)

    def _data(self, data: bytes, t_ns: int) -> None:
        if data.strip() == DONE:
            self._ended = True
            return
        before = len(self.unread)
        chunk = RESPONSE.decode(data, self.unread)
        if chunk is None:
            self._malformed = self._malformed or len(self.unread) > before
            return
        if chunk.usage is not None:
            self.usage.update(chunk.usage)
        if chunk.choices is None:
            self._error = self._error or error_of(chunk)
            return
        if chunk.error is not None:
            self._error = self._error or error_of(chunk)
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self._ended = True
            if choice_has_output(choice):
                self._token(t_ns)

    def _token(self, t_ns: int) -> None:
        if self.outputs_ns and self.outputs_ns[-1] == t_ns:
            self.counts[-1] += 1
            return
        if self.first_ns is None:
            self.first_ns = t_ns
        self.outputs_ns.append(t_ns)
        self.counts.append(1)

    def template(self, data: bytes) -> ChunkTemplate | None:
        """Return a template if the read had exactly one token and ended with an event."""
        if self._events.rest or not self.counts or self.counts[-1] != 1:
            return None
        return learn_template(data, self.outputs_ns, self.counts)

    def outcome(self) -> str | None:
        """Return the error.

        A stream without finish reason and ``[DONE]`` is truncated, however it was closed.
        """
        if self._events.rest:  # some servers omit the empty line after the last event
            self._event(self._events.rest, self._last_ns)
            self._events = EventSplitter()
        if self._error:
            return self._error
        if self._malformed and not (self._ended and self.counts):
            return "malformed chunk: not a JSON object"
        return None if self._ended else "the stream ended without a finish reason or [DONE]"


def parts_of(data: bytes) -> list[bytes]:
    """Split the data of an event of several ``data`` lines where each line is an object of its own.

    The lines of an event belong together (WHATWG HTML, section 9.2); but some servers end each event with
    one line end instead of two, and that looks the same.
    """
    lines = [line for line in data.split(b"\n") if line.strip()]
    if all(line.lstrip().startswith(b"{") or line.strip() == DONE for line in lines):
        try:
            msgspec.json.decode(data)
        except ValueError:
            return lines
    return [data]


def error_of(body: ResponseBody) -> str | None:
    """Return the error text for a body with an error in spite of status 200; None without one.

    ``{"error": ...}`` as OpenAI's API has it, or ``{"object": "error", "message": ...}`` of older servers.
    """
    error = body.error
    if error is None:
        if not isinstance(body.message, str) or body.choices is not None or body.data is not None:
            return None
        message: str | None = body.message
    else:
        message = error if isinstance(error, str) else error.message
    text = "the server reported an error with status 200"
    return f"{text}: {' '.join(message.split())[:_MAX_MESSAGE]}" if message else text


class NonStreamedResponse:
    """Reader of a non-streamed response, one JSON object.

    The time of the first token is unknown, so ``first_ns`` stays None.
    """

    __slots__ = ("_pieces", "counts", "first_ns", "items", "outputs_ns", "unread", "usage")

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.outputs_ns: list[int] = []
        self.counts: list[int] = []
        self.usage = TokenCounts()
        self.unread: list[str] = []
        self.items: int | None = None
        self._pieces: list[bytes] = []

    def feed(self, data: bytes, t_ns: int) -> None:
        """Collect the body."""
        del t_ns
        self._pieces.append(data)

    def template(self, data: bytes) -> None:
        """Return None: there are no chunks."""

    def outcome(self) -> str | None:
        """Decode usage and the number of items from the body, then discard the body."""
        body = RESPONSE.decode(b"".join(self._pieces), self.unread)
        self._pieces.clear()
        if body is None:
            return "malformed response: not a JSON object"
        if body.usage is not None:
            self.usage.update(body.usage)
        self.items = None if body.data is None else len(body.data)
        return error_of(body)
