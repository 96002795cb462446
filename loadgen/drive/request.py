# Compiled by mypyc: see setup.py.
"""One request in flight: receives the events of its connection and becomes a record.

All times of a record are nanoseconds since the start of the point, on the monotonic clock.
"""

import time
from collections.abc import Callable
from typing import Protocol

from loadgen.client.chunk_template import ChunkTemplate
from loadgen.client.jobs import JobPoller, JobResponse
from loadgen.client.responses import NonStreamedResponse, ResponseReader, StreamedResponse
from loadgen.client.text_capture import TextCapture
from loadgen.results.records import Record
from loadgen.workload.request_bodies import Workload

_STATUS_OK = range(200, 300)


class Owner(Protocol):
    """The attack that a request is part of."""

    start_ns: int
    point: int
    workload: Workload

    def request_id(self, index: int) -> str:
        """Return the id that the request carries in its header."""

    def poll_job(self, job: str, ended: Callable[[int, str | None], None]) -> JobPoller:
        """Poll a job until it ends."""

    def keep_text(self, index: int, text: str) -> None:
        """Store the text of a response; its tokens are counted after the point."""

    def finished(self, active: "ActiveRequest", record: Record, unread: list[str]) -> None:
        """Receive the record of a request that ended.

        ``unread`` names the fields of its response that could not be decoded.
        """


class ActiveRequest:
    """One request in flight: the ``ResponseHandler`` of its connection."""

    __slots__ = (
        "_attack", "_code", "_poller", "_reader", "dispatched_ns", "id", "index", "scheduled_ns", "sent_ns",
    )  # fmt: skip

    def __init__(self, attack: Owner, index: int, scheduled_ns: int, reader: ResponseReader) -> None:
        """Stamp the dispatch; ``scheduled_ns`` is since the start of the point."""
        self._attack = attack
        self._reader = reader
        self._code: int | None = None
        self._poller: JobPoller | None = None
        self.index = index
        self.id = attack.request_id(index)
        self.scheduled_ns = scheduled_ns
        self.dispatched_ns = time.monotonic_ns()
        self.sent_ns: int | None = None

    def started(self, t_ns: int) -> None:
        """Record when the request was written to the socket."""
        self.sent_ns = t_ns

    def status(self, code: int) -> None:
        """Record the status code."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Feed the body of a successful response to its reader; discard the body of an error."""
        if self._code in _STATUS_OK:
            self._reader.feed(data, t_ns)

    def template(self, data: bytes) -> ChunkTemplate | None:
        """Return the reader's template for chunks like ``data``."""
        return self._reader.template(data) if self._code in _STATUS_OK else None

    def ended(self, t_ns: int) -> None:
        """Evaluate the complete response; if it is a job, poll that until it ends."""
        if self._code not in _STATUS_OK:
            self._finish(t_ns, f"HTTP {self._code}")
            return
        error = self._reader.outcome()
        if error is None and isinstance(self._reader, JobResponse) and self._reader.job is not None:
            self._poller = self._attack.poll_job(self._reader.job, self._finish)
        else:
            self._finish(t_ns, error)

    def failed(self, reason: str, t_ns: int) -> None:
        """Finish without a complete response."""
        if self._poller is not None:  # abandoned while its job continues
            self._poller.stop()
        self._finish(t_ns, reason)

    def _finish(self, t_ns: int, error: str | None) -> None:
        if isinstance(self._reader, TextCapture):
            text = self._reader.text()
            if text or error is None:  # a failure without text has an unknown number of tokens, not zero
                self._attack.keep_text(self.index, text)
        self._attack.finished(self, self.record(t_ns, error), self._reader.unread)

    def record(self, end_ns: int | None, error: str | None) -> Record:
        """Return the record as of now; ``end_ns`` is None while the request is in flight.

        Output tokens are those of the server's usage, else the number of chunks with output.
        """
        reader, start = self._reader, self._attack.start_ns
        usage = reader.usage
        chunks = sum(reader.counts) or None
        counted = usage.output
        return Record(
            point=self._attack.point,
            index=self.index,
            id=self.id,
            scheduled_ns=self.scheduled_ns,
            dispatched_ns=self.dispatched_ns - start,
            sent_ns=None if self.sent_ns is None else self.sent_ns - start,
            first_ns=None if reader.first_ns is None else reader.first_ns - start,
            end_ns=None if end_ns is None else end_ns - start,
            outputs_ns=[t - start for t in reader.outputs_ns],
            counts=reader.counts,
            status=self._code,
            error=error,
            prompt_tokens=usage.prompt,
            output_tokens=counted if counted is not None else chunks,
            images=reader.items
            if isinstance(reader, NonStreamedResponse) and self._attack.workload.endpoint == "images"
            else None,
        )


def new_reader(workload: Workload, *, capture_text: bool = False) -> ResponseReader:
    """Return a reader for one response of a workload.

    With ``capture_text`` it also keeps the text of endpoints that return text.
    """
    if workload.endpoint == "videos":
        return JobResponse()
    reader: ResponseReader = StreamedResponse() if workload.streamed else NonStreamedResponse()
    return TextCapture(reader) if capture_text and workload.endpoint in {"chat", "completions"} else reader
