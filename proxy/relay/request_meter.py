# Compiled by mypyc: see setup.py.
"""Report one metered request to the meter: its beginning, its chunks, its end."""

import itertools
from collections.abc import Sequence
from typing import Final, Protocol

from proxy.api.jobs import JobState
from proxy.api.native.dialect import Dialect
from proxy.clock import now_ns
from proxy.core.events import Arrive, End
from proxy.ipc import Chunk, Closed, JobReport, Opened, ToMeter
from proxy.relay.http.trace_context import Trace
from proxy.relay.jobs.units import units_of
from proxy.relay.meter_link import MeterLink
from proxy.relay.response.reading import Reading
from proxy.schema import Units

_PROMPT_ONLY: Final = frozenset(("embeddings", "rerank", "score", "pooling"))  # no output
_KEYS: Final = itertools.count(1)


class NewJob(Protocol):
    """A job that a request creates, if its backend accepts it."""

    def accept(self, request_meter: "RequestMeter", state: JobState) -> bool:
        """Return whether the response describes a job that runs; it then calls ``end_job`` at its end."""


class RequestMeter:
    """Sends ``Opened``, then ``Chunk`` messages, then ``Closed`` exactly once.

    That of a job stays open after its response: it sends ``JobReport`` messages, and ``Closed`` at its end.
    """

    __slots__ = (
        "_closed",
        "_first_byte_ns",
        "_images",
        "_job",
        "_job_report",
        "_opened",
        "_server",
        "_unread",
        "arrive",
        "key",
        "link",
        "metered",
        "reading",
        "request",
    )

    def __init__(
        self,
        link: MeterLink,
        arrive: Arrive,
        server: str | None,
        port: int | None,
        dialects: tuple[Dialect, ...] = (),
        job: NewJob | None = None,
    ) -> None:
        self.link = link
        self.key = next(_KEYS)
        self._closed = False
        self._first_byte_ns: int | None = None
        self._images = arrive.route == "images"
        self.arrive = arrive
        self._job = job
        self._job_report: JobReport | None = None  # the last one; it has been accepted as a job
        self._opened: Opened | None = None
        self._server = (server, port)
        self.request = arrive.request
        self.reading = Reading(dialects)
        self.reading.reads_job = job is not None
        self.metered = True
        self._unread: tuple[str, ...] = ()

    def open(
        self,
        trace: Trace,
        received_ns: int,
        path: str,
        max_tokens: int | None,
        unread: Sequence[str] = (),
    ) -> None:
        """Report that the request is about to be sent; ``unread``: fields that could not be read."""
        self._unread = unread_names("request", unread)
        server, port = self._server
        opened = self._opened = Opened(
            self.key,
            self.arrive,
            path=path,
            server_address=server,
            server_port=port,
            trace_id=trace.trace_id,
            server_span_id=trace.server_span_id,
            client_span_id=trace.client_span_id,
            parent_span_id=trace.parent_span_id,
            trace_sampled=trace.sampled,
            max_tokens=max_tokens,
            received_ns=received_ns,
        )
        self.link.running[self.key] = self
        self.link.send(opened)

    def replay_messages(self, t_ns: int) -> list[ToMeter]:
        """Return messages for a meter that starts at ``t_ns``: the beginning and the output until now.

        The output is two chunks, the first token at its time and the rest now: all of it lies before what
        that meter can measure, and none is charged.
        """
        if self._opened is None:
            return []
        received: list[ToMeter] = [self._opened]
        if self._first_byte_ns is not None:
            received.append(Chunk(self.key, self._first_byte_ns, 1))
            if self.reading.counted > 1:
                received.append(Chunk(self.key, t_ns, self.reading.counted - 1))
        if self._job_report is not None:
            received.append(self._job_report)
        return received

    def chunk(self, t_ns: int, tokens: int) -> None:
        """Report a chunk with ``tokens`` output tokens, received at ``t_ns``."""
        if self._first_byte_ns is None:
            self._first_byte_ns = t_ns
        self.link.send_chunk(Chunk(self.key, t_ns, tokens))

    def _prompt_tokens(self) -> int | None:
        """Return the tokens of the prompt; a server that generates none may report their total alone."""
        if self.reading.prompt_tokens is None and self.arrive.route in _PROMPT_ONLY:
            return self.reading.total_tokens
        return self.reading.prompt_tokens

    def close(self, status: int | None, error: str | None = None, *, cancelled: bool = False) -> None:
        """Report the end of the response; later calls have no effect, and neither do those for a job."""
        if self._closed or self._job_report is not None:
            return
        units = Units(images=self.reading.items) if self._images and self.reading.items is not None else None
        job, state = self._job, self.reading.job
        if job is not None and state is not None and not cancelled and status is not None and status < 300:
            if job.accept(self, state):
                return
            units = units_of(state) if state.completed else None
        self._close(status, error, units, cancelled=cancelled)

    def report_job(self, t_ns: int, started_ns: int | None, end_ns: int | None) -> None:
        """Report when the work of a job began, None while it waits, and when it is expected to end."""
        self._job_report = JobReport(self.key, t_ns, started_ns, end_ns)
        self.link.send(self._job_report)

    def end_job(self, units: Units, error: str | None, *, cancelled: bool) -> None:
        """Report the end of a job that was accepted."""
        self._close(200, error, units, cancelled=cancelled)

    def _close(self, status: int | None, error: str | None, units: Units | None, *, cancelled: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self.link.running.pop(self.key, None)
        reading = self.reading
        total = reading.output_tokens
        if total is None and reading.counted and not cancelled and self.metered:
            total = reading.counted
        end = End(
            now_ns(),
            self.request,
            status,
            cancelled,
            self._prompt_tokens(),
            reading.cached_tokens,
            total,
            units,
        )
        self.link.send(
            Closed(
                self.key,
                end,
                self._first_byte_ns,
                reading.response_id,
                reading.model,
                tuple(reading.finish_reasons),
                error,
                self.metered,
                self._unread + unread_names("response", reading.unread),
            )
        )


def unread_names(body: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return each of the names once, after that of the body it is of."""
    return tuple(f"{body}.{name}" for name in sorted(set(names))) if names else ()
