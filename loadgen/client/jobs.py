"""Answers that are jobs (``/v1/videos``): asked for again until they end.

The end is when the answer that says so came: at most one poll later than the job's own end.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from loadgen.client.http_client import Client, request_bytes
from proxy.api.lenient import LenientDecoder
from proxy.api.usage import TokenCounts

POLL_S = 0.25
_MAX_STATUS = 200  # characters that a record keeps


class _Job(msgspec.Struct):
    id: str | None = None
    status: str | None = None


_JOB = LenientDecoder(_Job)


def job_state(body: bytes) -> tuple[str, str]:
    """Id and state of a job: ``going``, ``done``, else what went wrong; ``ValueError`` if it is none."""
    job = _JOB.decode(body, [])
    if job is None or not job.id:
        raise ValueError("not a job of the API: no JSON object with an id")
    status = job.status or "queued"
    if status in {"queued", "in_progress", "processing"}:
        return job.id, "going"
    return job.id, "done" if status == "completed" else f"the job ended as {status[:_MAX_STATUS]}"


@dataclass(slots=True)
class JobAnswer:
    """The answer that makes a job; ``job`` is its id while it goes on."""

    first_ns: int | None = None
    outputs_ns: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    usage: TokenCounts = field(default_factory=TokenCounts)
    unread: list[str] = field(default_factory=list)
    job: str | None = None
    _body: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes, t_ns: int) -> None:
        """Gather the body."""
        del t_ns
        self._body += data

    def lane(self, data: bytes) -> None:
        """There is nothing to count."""

    def outcome(self) -> str | None:
        """None for a job that goes on (``job`` is set) or is done at once."""
        try:
            name, state = job_state(bytes(self._body))
        except ValueError as error:
            return str(error)
        if state == "going":
            self.job = name
        return None if state in {"going", "done"} else state


class Follower:
    """Polls one job; ``ended(t_ns, error)`` is called once. An ``Exchange`` of the client."""

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
        """Ask no more; ``ended`` is not called."""
        self._stopped = True

    def wait(self) -> None:
        """Ask in a while."""
        asyncio.get_running_loop().call_later(POLL_S, self._ask)

    def _ask(self) -> None:
        if self._stopped:
            return
        self._body.clear()
        self._client.send(self, request_bytes(self._client.target, "GET", self._path, self._headers, b""))

    def started(self, t_ns: int) -> None:
        """Nothing to note."""

    def status(self, code: int) -> None:
        """Remember it."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Gather."""
        del t_ns
        self._body += data

    def lane(self, data: bytes) -> None:
        """Not streamed."""

    def ended(self, t_ns: int) -> None:
        """Done, or to be asked again."""
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
        if state == "going":
            self.wait()
        else:
            self._ended(t_ns, None if state == "done" else state)

    def failed(self, reason: str, t_ns: int) -> None:
        """No answer to a poll is the end, as nothing here is tried again."""
        if self._stopped:
            return
        self._ended(t_ns, reason)
