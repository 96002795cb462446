# Compiled by mypyc: see setup.py.
"""One request on its way: what its connection reports, until it is a record."""

import time
from collections.abc import Callable
from typing import Protocol

from loadgen.client.chunk_template import Lane
from loadgen.client.jobs import Follower, JobAnswer
from loadgen.client.responses import Answer, StreamAnswer, WholeAnswer
from loadgen.client.text_capture import Spoken
from loadgen.results.records import Record
from loadgen.workload.request_bodies import Workload

_STATUS_OK = range(200, 300)


class Owner(Protocol):
    """The attack that a call is part of."""

    start_ns: int
    point: int
    workload: Workload

    def request_id(self, index: int) -> str:
        """The id of a request."""

    def follow(self, job: str, ended: Callable[[int, str | None], None]) -> Follower:
        """Poll a job until it ends."""

    def keep(self, index: int, text: str) -> None:
        """Keep an answer's text, to be counted at the end."""

    def finished(self, call: "Call", record: Record, unread: list[str]) -> None:
        """A call ended; ``unread`` names the fields of its answer that could not be read."""


class Call:
    """One request on its way; an ``Exchange`` of the client."""

    __slots__ = (
        "_answer", "_attack", "_code", "_follower", "dispatched_ns", "id", "index", "scheduled_ns", "sent_ns",
    )  # fmt: skip

    def __init__(self, attack: Owner, index: int, scheduled_ns: int, answer: Answer) -> None:
        self._attack = attack
        self._answer = answer
        self._code: int | None = None
        self._follower: Follower | None = None
        self.index = index
        self.id = attack.request_id(index)
        self.scheduled_ns = scheduled_ns
        self.dispatched_ns = time.monotonic_ns()
        self.sent_ns: int | None = None

    def started(self, t_ns: int) -> None:
        """Note when the bytes went out."""
        self.sent_ns = t_ns

    def status(self, code: int) -> None:
        """Note the status."""
        self._code = code

    def body(self, data: bytes, t_ns: int) -> None:
        """Pass on the body of a success."""
        if self._code in _STATUS_OK:
            self._answer.feed(data, t_ns)

    def lane(self, data: bytes) -> Lane | None:
        """Return the answer's."""
        return self._answer.lane(data) if self._code in _STATUS_OK else None

    def ended(self, t_ns: int) -> None:
        """Judge the answer; poll the job, if it is one."""
        if self._code not in _STATUS_OK:
            self._finish(t_ns, f"HTTP {self._code}")
            return
        error = self._answer.outcome()
        if error is None and isinstance(self._answer, JobAnswer) and self._answer.job is not None:
            self._follower = self._attack.follow(self._answer.job, self._finish)
        else:
            self._finish(t_ns, error)

    def failed(self, reason: str, t_ns: int) -> None:
        """Finish without a complete answer."""
        if self._follower is not None:  # given up on, while its job goes on
            self._follower.stop()
        self._finish(t_ns, reason)

    def _finish(self, t_ns: int, error: str | None) -> None:
        if isinstance(self._answer, Spoken):
            text = self._answer.text()
            if text or error is None:  # of a failure that said nothing the tokens are not known
                self._attack.keep(self.index, text)
        self._attack.finished(self, self.record(t_ns, error), self._answer.unread)

    def record(self, end_ns: int | None, error: str | None) -> Record:
        """The record as of now."""
        answer, start = self._answer, self._attack.start_ns
        usage = answer.usage
        chunks = sum(answer.counts) or None
        counted = usage.output
        return Record(
            point=self._attack.point,
            index=self.index,
            id=self.id,
            scheduled_ns=self.scheduled_ns,
            dispatched_ns=self.dispatched_ns - start,
            sent_ns=None if self.sent_ns is None else self.sent_ns - start,
            first_ns=None if answer.first_ns is None else answer.first_ns - start,
            end_ns=None if end_ns is None else end_ns - start,
            outputs_ns=[t - start for t in answer.outputs_ns],
            counts=answer.counts,
            status=self._code,
            error=error,
            prompt_tokens=usage.prompt,
            output_tokens=counted if counted is not None else chunks,
            images=answer.items
            if isinstance(answer, WholeAnswer) and self._attack.workload.endpoint == "images"
            else None,
        )


def new_answer(workload: Workload, *, spoken: bool = False) -> Answer:
    """What reads the answers of a workload; ``spoken``: and keeps their text, where they are text."""
    if workload.endpoint == "videos":
        return JobAnswer()
    answer: Answer = StreamAnswer() if workload.streamed else WholeAnswer()
    return Spoken(answer) if spoken and workload.endpoint in {"chat", "completions"} else answer
