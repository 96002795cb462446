"""Asynchronous jobs (``/v1/videos``): polled until they end.

The end of a job is the arrival of the response that reports it: at most one poll interval after its true end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from loadgen.client.http_client import Client, request_bytes
from proxy.api.lenient import LenientDecoder
from proxy.api.usage import TokenCounts

POLL_S = 0.25  # between polls
_MAX_STATUS = 200  # characters that a record keeps


class _Job(msgspec.Struct):
    id: str | None = None
    status: str | None = None


_JOB = LenientDecoder(_Job)


def job_state(body: bytes) -> tuple[str, str]:
    """Return id and state of a job: ``running``, ``done`` or the reason of its failure.

    Raises ``ValueError`` if the body is not a job.
    """
    job = _JOB.decode(body, [])
    if job is None or not job.id:
        raise ValueError("not a job of the API: no JSON object with an id")
    status = job.status or "queued"
    if status in {"queued", "in_progress", "processing"}:
        return job.id, "running"
    return job.id, "done" if status == "completed" else f"the job ended as {status[:_MAX_STATUS]}"


@dataclass(slots=True)
class JobResponse:
    """Reader of the response that creates a job; ``job`` is its id while it runs."""

    first_ns: int | None = None
    outputs_ns: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    usage: TokenCounts = field(default_factory=TokenCounts)
    unread: list[str] = field(default_factory=list)
    job: str | None = None
    _body: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes, t_ns: int) -> None:
        """Collect the body."""
        del t_ns
        self._body += data

    def template(self, data: bytes) -> None:
        """Return None: there are no tokens to count."""

    def outcome(self) -> str | None:
        """Return None for a job that runs (``job`` is set) or is already done, else the error."""
        try:
            name, state = job_state(bytes(self._body))
        except ValueError as error:
            return str(error)
        if state == "running":
            self.job = name
        return None if state in {"running", "done"} else state


class JobPoller:
    """Polls one job; ``ended(t_ns, error)`` is called once. An ``ResponseHandler`` of the client."""

    __slots__ = ("_body", "_client", "_code", "_ended", "_headers", "_path", "_stopped")

    def __init__(
        self, client: Client, path: str, headers: bytes, ended: Callable[[int, str | None], None]
    ) -> None:
        self._client = client
        self._path = path
        self._headers = headers
        self._ended = ended
        self._code = 0
        self._body = bytearray()
        self._stopped = False

    def stop(self) -> None:
        """Stop polling; ``ended`` is not called."""
        self._stopped = True

    def wait(self) -> None:
        """Schedule the next poll."""
        asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        if self._stopped:
            return
        self._body.clear()
        self._client.send(self, request_bytes(self._client.target, "GET", self._path, self._headers, b""))

    def started(self, t_ns: int) -> None:
        """Ignore the time of the poll."""

    def status(self, code: int) -> None:
        """Record the status code."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Collect the body."""
        del t_ns
        self._body += data

    def template(self, data: bytes) -> None:
        """Return None: the response is not streamed."""

    def ended(self, t_ns: int) -> None:
        """Report the end of the job, or schedule the next poll."""
        if self._stopped:
            return
        if self._code != 200:
            self._ended(t_ns, f"HTTP {self._code} for the job")
            return
        try:
            _, state = job_state(bytes(self._body))
        except ValueError as error:
            self._ended(t_ns, str(error))
            return
        if state == "running":
            self.wait()
        else:
            self._ended(t_ns, None if state == "done" else state)

    def failed(self, reason: str, t_ns: int) -> None:
        """Report a failed poll as the end of the job: nothing is retried."""
        if self._stopped:
            return
        self._ended(t_ns, reason)
