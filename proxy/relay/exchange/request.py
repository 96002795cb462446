# Compiled by mypyc: see setup.py.
"""A client's request: its head, the collected part of its body, and the fields read of it. No I/O."""

from typing import Final

from proxy.api.edit import as_utf8
from proxy.api.encoding import decompress_beginning
from proxy.api.endpoints import Endpoint, endpoint_of
from proxy.api.fields import MAX_TEXT_LENGTH, REQUEST, RequestBody
from proxy.api.forms import form_fields
from proxy.api.jobs import JobPath, job_path_of
from proxy.api.lenient import WHOLE_BODY
from proxy.api.stream_options import asks_for_usage, with_usage
from proxy.api.usage import count_or_none
from proxy.relay.exchange.replay import MAX_READ_BYTES, BodyBuffer, may_repeat
from proxy.relay.http.framing import Chunked
from proxy.relay.http.heads import RequestHead
from proxy.relay.http.trace_context import Ids
from proxy.relay.upstreams.connections import UpstreamConnection
from proxy.schema import REQUEST_ID_HEADER

_ID: Final = REQUEST_ID_HEADER.lower().encode()
_ID_LENGTH: Final = 200  # of a client's own; a longer one is replaced
# Servers differ in whether they look at the type: curl sends JSON as a form unless it is given one.
_READABLE: Final[tuple[bytes, ...]] = (b"text/", b"application/x-www-form-urlencoded", b"multipart/form-data")
# Of a compressed body, which bounds the work for one that grows a thousandfold.
_MAX_DECOMPRESSED_BYTES = 16 * 1024 * 1024  # not Final, which the compiled build would fix: a test lowers it
# Images and sound: of data URLs (RFC 2397), of the Messages API, of OpenAI's audio input.
_EMBEDDED: Final = (b";base64,", b'"base64"', b'"input_audio"')
_FORM_FIELDS: Final = frozenset(("model",))


class Request:
    """One request.

    ``path``: without the query. ``endpoint``: None for one that passes unread. ``job``: that it is about.
    ``fields``: of its body, once :meth:`read` was called; ``unread`` names those that could not be read.
    """

    __slots__ = ("_options", "_text", "body", "endpoint", "fields", "head", "id", "job", "path", "unread")

    def __init__(self, head: RequestHead, ids: Ids, limit: int = MAX_READ_BYTES) -> None:
        """``limit``: of the body that is held to be read, in bytes."""
        given = head.text(_ID)
        self.id = given if given and len(given) <= _ID_LENGTH else f"req-{ids.draw(32)}"
        self.head = head
        self.path, self.endpoint, readable, self.job = head.kept.request_target or _request_target(head)
        reads = readable and self.endpoint is not None
        self.body = BodyBuffer(head.length, present=head.body is not None, reads=reads, limit=limit)
        self.fields = RequestBody()
        self.unread: list[str] = []
        self._text: bytes | None = None  # of a body to which a request for usage is added
        self._options = b""  # its stream_options

    @property
    def route(self) -> str | None:
        """Kind of work that is metered; None where nothing is."""
        return self.endpoint.route if self.endpoint is not None else None

    @property
    def model(self) -> str | None:
        """The model as records name it."""
        model = self.fields.model
        return model[:MAX_TEXT_LENGTH] if model else model

    @property
    def output_limit(self) -> int | None:
        """How many tokens the response may have, under any endpoint's name for it."""
        fields = self.fields
        return count_or_none(
            fields.max_completion_tokens or fields.max_tokens or fields.max_output_tokens or fields.n_predict
        )

    @property
    def samples(self) -> int | None:
        """How many sequences the engine computes for the request; None for one.

        The most of ``n`` and ``best_of``: candidates are computed, though not all of them are returned.
        """
        most = max(self.fields.n or 1, self.fields.best_of or 1)
        return count_or_none(most) if most > 1 else None

    def prompt(self) -> bytes | None:
        """Return the prompt's text as it is in the body; None without one.

        None, too, for one that holds images or sound as text: its length does not show its tokens.
        """
        fields = self.fields
        text = b"".join(
            (fields.tools, fields.system, fields.instructions, fields.messages, fields.prompt, fields.input)
        )
        return None if not text or any(mark in text for mark in _EMBEDDED) else text

    def read(self) -> bytes | None:
        """Read the body, or the beginning of one that is too large; return all of it without framing.

        None where it was not collected to be read, or is not complete: then it is sent on as it comes. A
        compressed body is decompressed to be read; it is sent on as it came, so usage is not requested in it.
        """
        body, head, endpoint = self.body, self.head, self.endpoint
        if endpoint is None or not body.collected:
            return None
        payload = body.joined()
        chunked = isinstance(head.body, Chunked)
        if chunked:
            payload = b"".join(Chunked().feed(payload)[0])
        coding = head.values.get(b"content-encoding", b"").strip().lower()
        compressed = coding not in {b"", b"identity"}
        readable, complete = payload, True
        if compressed:
            readable, complete = decompress_beginning(coding, payload, _MAX_DECOMPRESSED_BYTES)
            if not complete and body.reads:
                self.unread.append(WHOLE_BODY)
        text = self._read_fields(readable)
        if not body.reads:
            return None
        if chunked:
            body.replace(payload)
        if self.fields.stream is True and endpoint.asks_usage and not compressed:
            self._options = bytes(self.fields.stream_options)
            self._text = None if asks_for_usage(self._options) else text
        return text if complete else None

    def _read_fields(self, payload: bytes) -> bytes:
        """Read the fields of a body, JSON or a form; return it in UTF-8."""
        kind = self.head.values.get(b"content-type", b"")
        if kind[:9].lower() == b"multipart":
            self.fields.model = form_fields(kind, payload, _FORM_FIELDS).get("model")
            return payload
        text = as_utf8(payload)
        self.fields = REQUEST.decode(text, self.unread) or self.fields
        return text

    def with_usage(self) -> bytes | None:
        """Return the body that also requests usage; None where that is not needed or not possible."""
        return None if self._text is None else with_usage(self._text, self._options)

    def may_repeat(self, failed: UpstreamConnection) -> bool:
        """Return whether this request may be sent again after ``failed`` failed; see ``replay``."""
        if failed.answered or not self.body.repeatable:
            return False
        return may_repeat(self.head.method, self.endpoint, kept=failed.used, unprocessed=failed.unprocessed)


def _request_target(head: RequestHead) -> tuple[str, Endpoint | None, bool, JobPath | None]:
    """Return path, endpoint, whether the body can be read, and job; all heads like this one keep it."""
    path = head.target.partition(b"?")[0].decode("latin-1")
    kind = head.values.get(b"content-type", b"").lower()
    readable = not kind or b"json" in kind or kind.startswith(_READABLE)
    method = head.method.decode("latin-1")
    head.kept.request_target = (path, endpoint_of(method, path), readable, job_path_of(method, path))
    return head.kept.request_target
