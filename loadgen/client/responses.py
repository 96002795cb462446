# Compiled by mypyc: see setup.py.
"""Answers of an OpenAI-compatible server, piece by piece: when tokens came and how many.

Sans-I/O: the connection feeds bytes with the stamp of the read they came in, and asks for the outcome
at the end. Nothing of the text is kept. What events and bodies mean is :mod:`proxy.api`'s business: fields
that cannot be read are counted by name in ``unread`` and void nothing beside them.
"""

from typing import Final, Protocol

import msgspec

from loadgen.client.chunk_template import Lane, lane_of
from proxy.api.fields import RESPONSE, ResponseBody
from proxy.api.sse import DONE, EventSplitter, data_of
from proxy.api.tokens import choice_has_output
from proxy.api.usage import TokenCounts

_BOM: Final = b"\xef\xbb\xbf"
_MAX_MESSAGE: Final = 200  # characters of a server's error message that a record keeps


class Answer(Protocol):
    """What becomes of the body of a successful answer."""

    @property
    def first_ns(self) -> int | None:
        """When the first token came; None without one."""

    @property
    def outputs_ns(self) -> list[int]:
        """Of each read that carried tokens."""

    @property
    def counts(self) -> list[int]:
        """How many token chunks each of these carried."""

    @property
    def usage(self) -> TokenCounts:
        """Token counts as the server reports them."""

    @property
    def unread(self) -> list[str]:
        """Names of fields that were there and could not be read, once for each time."""

    def feed(self, data: bytes, t_ns: int) -> None:
        """Take the next bytes of the body, read at ``t_ns``."""

    def lane(self, data: bytes) -> Lane | None:
        """A short way for reads like ``data``, a whole chunk that was fed last; None: there is none."""

    def outcome(self) -> str | None:
        """None for a whole answer, else what was wrong with it."""


class StreamAnswer:
    """Server-sent events, each the JSON of one chunk."""

    __slots__ = (
        "_ended", "_error", "_events", "_first", "_last_ns", "_rubbish", "counts", "first_ns", "outputs_ns",
        "unread", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self.outputs_ns: list[int] = []
        self.counts: list[int] = []
        self.usage = TokenCounts()
        self.unread: list[str] = []
        self._events = EventSplitter()
        self._first = True  # no event came yet
        self._last_ns = 0
        self._ended = False
        self._rubbish = False  # there was data that is no JSON object
        self._error: str | None = None

    def feed(self, data: bytes, t_ns: int) -> None:
        """Accept bytes; every complete event in them is read at once."""
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
            self._rubbish = self._rubbish or len(self.unread) > before
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

    def lane(self, data: bytes) -> Lane | None:
        """For a read that brought one token, and left nothing to wait for."""
        if self._events.rest or not self.counts or self.counts[-1] != 1:
            return None
        return lane_of(data, self.outputs_ns, self.counts)

    def outcome(self) -> str | None:
        """A stream without a finish reason or ``[DONE]`` was cut, however cleanly it closed."""
        if self._events.rest:  # servers leave out the empty line after their last event
            self._event(self._events.rest, self._last_ns)
            self._events = EventSplitter()
        if self._error:
            return self._error
        if self._rubbish and not (self._ended and self.counts):
            return "not a chunk of the API: no JSON object"
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
    """Return what a failed request's record says of an error that came with status 200; None without one.

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


class WholeAnswer:
    """One JSON object: no first token can be seen, so ``first_ns`` stays None."""

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
        """Gather the body."""
        del t_ns
        self._pieces.append(data)

    def lane(self, data: bytes) -> None:
        """There is nothing to count."""

    def outcome(self) -> str | None:
        """Read the body for usage and the number of items; it is forgotten afterwards."""
        body = RESPONSE.decode(b"".join(self._pieces), self.unread)
        self._pieces.clear()
        if body is None:
            return "not an answer of the API: no JSON object"
        if body.usage is not None:
            self.usage.update(body.usage)
        self.items = None if body.data is None else len(body.data)
        return error_of(body)
