# Compiled by mypyc: see setup.py.
"""Read token counts and identifiers of a response; edit the usage of its events."""

from collections.abc import Mapping
from typing import Final

from proxy.api.body import BodyReader
from proxy.api.fields import MAX_TEXT_LENGTH, RESPONSE, Choice, EventDelta, InnerResponse, ResponseBody, Usage
from proxy.api.jobs import JobState, read_job
from proxy.api.native.dialect import Dialect, NativeCounts, Part
from proxy.api.scan import Scanner
from proxy.api.sse import DONE, data_of, with_data
from proxy.api.tokens import choice_has_output, event_completes_output, event_has_output
from proxy.api.usage import TokenCounts

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_FINISH_REASONS: Final = 128  # as many as a response may have choices
_STARTING: Final[tuple[str, ...]] = (
    "message_start",
    "response.created",
    "response.in_progress",
    "response.queued",
)


# Members of the chunks of SGLang, which writes fields that are not set as null: of a choice, of its delta.
_WRITES_NULLS: Final = (b'"matched_stop":', b'"tool_calls":null')
_NO_CHOICES: Final = (b"[]", b"null")
# Members of any chunk. Azure's first chunk has no choices either, but results of its filters.
_ENVELOPE: Final = frozenset(
    (
        b"id",
        b"object",
        b"created",
        b"model",
        b"choices",
        b"usage",
        b"system_fingerprint",
        b"service_tier",
    )
)

# Roles of an event in its stream.
NEUTRAL: Final = 0  # no data, or unreadable data
CONTENT: Final = 1
CONTENT_WITH_USAGE: Final = 2
FINAL_WITH_USAGE: Final = 3  # usage together with a finish reason
USAGE_ALONE: Final = 4  # of chat and completions: usage and no choices, be they empty, null or absent
LAST: Final = 5  # clients stop reading after it
_LAST_TYPES: Final[tuple[str, ...]] = (
    "message_stop",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
)


def _role_of(body: ResponseBody) -> int:
    if body.type is not None and not body.choices:
        return LAST if body.type in _LAST_TYPES else CONTENT
    if body.usage is None:
        return CONTENT
    if not body.choices:
        return USAGE_ALONE
    return FINAL_WITH_USAGE if any(choice.finish_reason for choice in body.choices) else CONTENT_WITH_USAGE


class Reading:
    """Values read from one response so far.

    ``counted``: output tokens, by chunks. ``items``: length of ``data`` (images, embeddings). ``unread``:
    names of fields that could not be read. ``dialects``: those that the response may be in, other than
    the OpenAI API's.
    """

    __slots__ = (
        "_counts", "_dialect", "_has_output", "_native", "_tokens_after_usage", "counted", "dialects",
        "finish_reasons", "items", "job", "model", "reads_job", "response_id", "unread",
    )  # fmt: skip

    def __init__(self, dialects: tuple[Dialect, ...] = ()) -> None:
        self.dialects = dialects
        self.reads_job = False  # whether the response is the state of a job
        self.job: JobState | None = None  # that state
        self._dialect: Dialect | None = None  # of this response
        self._native = NativeCounts()  # of a response in it
        self.response_id: str | None = None
        self.model: str | None = None
        self.finish_reasons: list[str] = []
        self.counted = 0
        self.items: int | None = None
        self.unread: list[str] = []
        self._counts = TokenCounts()
        self._has_output = False  # a message that was not streamed
        self._tokens_after_usage = False  # the usage read last is no total: output went on

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, cached ones included; None where not known."""
        return self._counts.prompt if self._counts.prompt is not None else self._native.prompt

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt read from a cache; None where not known."""
        return self._counts.cached if self._counts.cached is not None else self._native.cached

    @property
    def total_tokens(self) -> int | None:
        """Tokens of prompt and output as the server added them; None where not known."""
        return self._counts.total

    @property
    def output_tokens(self) -> int | None:
        """Output tokens by the server's usage; None where it reported none, or a placeholder of 0."""
        output = self._counts.output
        if output is None:
            output = self._native.output
        if output is None or (output == 0 and (self.counted or self._has_output)):
            return None
        return max(output, self.counted) if self._tokens_after_usage else output

    def read_event(self, event: bytes) -> tuple[int, int]:
        """Read one streamed event; return the new tokens in it, and its role (``NEUTRAL`` ... ``LAST``)."""
        data = data_of(event)
        if data is None:
            return 0, NEUTRAL
        if data.strip() == DONE:
            return 0, LAST
        if self.dialects and (dialect := self._dialect_of(data)) is not None:
            return self._read_native(dialect, data), CONTENT
        body = RESPONSE.decode(data, self.unread)
        if body is None:
            return 0, NEUTRAL
        return self._read(body), _role_of(body)

    def read_line(self, line: bytes) -> int:
        """Read one line of a stream of JSON lines; return the new tokens in it."""
        dialect = self._dialect_of(line)
        return self._read_native(dialect, line) if dialect is not None else 0

    def read_headers(self, values: Mapping[bytes, bytes]) -> None:
        """Read the counts in response headers, whose names are in lower case."""
        for dialect in self.dialects:
            if dialect.headers is not None:
                prompt, output = (values.get(name, b"") for name in dialect.headers)
                if prompt.isdigit() and output.isdigit() and len(prompt + output) < 32:
                    self._native.update(Part(tokens=0, prompt=int(prompt), output=int(output)))

    def body_reader(self) -> BodyReader:
        """Return the reader for a complete response."""
        return BodyReader(frozenset[bytes]().union(*(dialect.names for dialect in self.dialects)))

    def _dialect_of(self, data: bytes) -> Dialect | None:
        """Return the dialect of a document; None where it is in none of those of the endpoint."""
        dialect = self._dialect
        if dialect is not None and dialect.matches(data):
            return dialect
        for dialect in self.dialects:
            if dialect.matches(data):
                self._dialect = dialect
                return dialect
        return None

    def _read_native(self, dialect: Dialect, data: bytes, *, streamed: bool = True) -> int:
        tokens = 0
        for part in dialect.read(data, self.unread):
            self._name(part.response_id, part.model)
            if part.finish_reason:
                self._finish(part.finish_reason)
            tokens += self._native.update(part)
        if not streamed:
            self._has_output = self._has_output or tokens > 0
            tokens = 0
        self.counted += tokens
        return tokens

    def read_complete(self, reader: BodyReader) -> None:
        """Read a complete JSON response."""
        if self.reads_job:
            self.job = read_job(reader.document())
        if self.dialects:
            document = reader.document()
            dialect = self._dialect_of(document)
            if dialect is not None:
                self._read_native(dialect, document, streamed=False)
                return
        body, items = reader.finish(self.unread)
        if body is not None:
            self._read(body, streamed=False)
        self.items = items if items is not None else self.items

    def _read(self, body: ResponseBody, *, streamed: bool = True) -> int:
        self._name(body.id, body.model)
        tokens = 0
        for choice in body.choices or ():
            tokens += self._read_choice(choice)
        if body.type is not None:  # messages, responses
            tokens += self._read_typed(body)
        if not streamed:  # a message shows that there was output, not how many tokens
            self._has_output = self._has_output or tokens > 0
            tokens = 0
        usage = body.usage
        if usage is not None:
            tokens = self._read_usage(usage, tokens)
        elif tokens:
            self._tokens_after_usage = True
        self.counted += tokens
        return tokens

    def _read_choice(self, choice: Choice) -> int:
        if choice.finish_reason:
            self._finish(choice.finish_reason)
        return 1 if choice_has_output(choice) else 0

    def _read_typed(self, body: ResponseBody) -> int:
        """Read what responses and messages have beside usage."""
        delta = body.delta
        reason = delta.stop_reason if isinstance(delta, EventDelta) else body.stop_reason
        if reason:
            self._finish(reason)
        for inner in (body.message, body.response):
            if isinstance(inner, InnerResponse):
                self._name(inner.id, inner.model)
                if inner.usage is not None:
                    self._counts.update(inner.usage, partial=body.type in _STARTING)
                    self._tokens_after_usage = False
        if body.choices:
            return 0
        if event_has_output(body) or (not self.counted and event_completes_output(body)):
            return 1
        return 0

    def _finish(self, reason: str) -> None:
        if len(self.finish_reasons) < _MAX_FINISH_REASONS:
            self.finish_reasons.append(reason[:MAX_TEXT_LENGTH])

    def _name(self, response_id: str | None, model: str | None) -> None:
        """Keep the first id and the first model that are not empty."""
        if response_id and not self.response_id:
            self.response_id = response_id[:MAX_TEXT_LENGTH]
        if model and not self.model:
            self.model = model[:MAX_TEXT_LENGTH]

    def _read_usage(self, usage: Usage, tokens: int) -> int:
        """Merge usage; return the new tokens of the event, which had ``tokens`` chunks with output."""
        total = self._counts.update(usage)
        self._tokens_after_usage = tokens > 0 and not total
        if tokens and total:
            return max(total - self.counted, 0)  # usage in every chunk gives the tokens of each
        return tokens


def without_usage(event: bytes) -> bytes:
    """Return a streamed chunk without its usage, which the client did not request."""
    data = data_of(event) or b""
    span = _span(data, b"usage")
    if span is None:
        return event
    name, _, end = span
    before, after = data[:name].rstrip(), data[end:].lstrip()
    if after.startswith(b","):
        after = after[1:].lstrip()
    else:
        before = before.removesuffix(b",")
    return with_data(event, before + after)


def without_empty_usage(event: bytes) -> bytes | None:
    """Return a streamed chunk without a ``usage`` that holds no counts; None where nothing else is in it.

    On request for usage, OpenAI and others write ``"usage": null`` into every chunk before the last, and
    a server may write any placeholder. Without the request their chunks have no such member. The exception is
    a server that writes all fields that are not set as null, with or without a request. Typed events, of
    other APIs, are not changed.
    """
    data = data_of(event)
    if data is None or b'"usage"' not in data:
        return event
    scanner = Scanner()
    scanner.feed(data)
    usage = scanner.members.get(b"usage")
    if usage is None or b"type" in scanner.members:
        return event
    if usage == b"null" and any(mark in data for mark in _WRITES_NULLS):
        return event
    if scanner.members.get(b"choices", b"[]") in _NO_CHOICES and scanner.members.keys() <= _ENVELOPE:
        return None
    return without_usage(event)


def _span(data: bytes, name: bytes) -> tuple[int, int, int] | None:
    scanner = Scanner(frozenset((name,)))
    scanner.feed(data)
    return scanner.spans.get(name)


def with_energy(body: bytes, energy: bytes) -> bytes:
    """Return a JSON object with ``energy`` as its last member, all other bytes unchanged."""
    end = body.rstrip().rfind(b"}")
    if end < 0 or not body.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return body
    empty = body[:end].removeprefix(_BYTE_ORDER_MARK).strip() == b"{"
    return body[:end].rstrip() + (b"" if empty else b",") + b'"energy":' + energy + body[end:]


def with_usage_energy(event: bytes, energy: bytes) -> bytes:
    """Return a chunk of usage with ``usage.energy``; as it was where its usage is no object."""
    data = data_of(event) or b""
    span = _span(data, b"usage")
    start = data.find(b"{", span[1], span[2]) if span is not None else -1
    if start < 0:
        return event
    comma = b"" if data[start + 1 :].lstrip().startswith(b"}") else b","
    return with_data(event, data[: start + 1] + b'"energy":' + energy + comma + data[start + 1 :])
