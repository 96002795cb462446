# Compiled by mypyc: see setup.py.
"""Pacers: when the next request is due. Pure: time and load enter as arguments.

The shell asks ``decide(elapsed_ns, sent, in_flight)`` and gets ``Send(deadline_ns)`` (absolute, since
the start of the point; a deadline in the past means at once), ``Hold`` (ask again when a request ends)
or ``Stop``. Open-loop pacers never look at ``in_flight``: arrivals do not wait for answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from loadgen.workload.arrivals import Arrivals
from proxy.units import ns_from_seconds


class Send:
    """Send the next request at ``deadline_ns`` since the start of the point.

    No dataclass: one is made for each decision, and its ``__init__`` would not be compiled (setup.py).
    """

    __slots__ = ("deadline_ns",)

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to send until a request ends."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing to send any more."""


HOLD: Final = Hold()
STOP: Final = Stop()
Decision = Send | Hold | Stop


class Pacer(Protocol):
    """What the attack obeys."""

    @property
    def ends_ns(self) -> int | None:
        """When to ask again though no request ended; None where nothing depends on the time alone."""

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """The next thing to do, with ``sent`` requests sent so far and ``in_flight`` unanswered."""


@dataclass(slots=True)
class OpenLoop:
    """Arrivals at the times of a process, whatever the server does.

    ``worker`` of ``workers`` takes every ``workers``-th arrival of the one joint process, so that N
    workers together realise exactly the process one worker would (peers that seed N processes alike
    repeat each gap N times).
    """

    arrivals: Arrivals
    duration_ns: int | None = None
    requests: int | None = None
    worker: int = 0
    workers: int = 1

    @property
    def ends_ns(self) -> int | None:
        """When the last arrivals are due."""
        return self.duration_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """The ``sent``-th of this worker's arrivals; never ``Hold``."""
        del elapsed_ns, in_flight
        index = sent * self.workers + self.worker
        if self.requests is not None and index >= self.requests:
            return STOP
        due_ns = self.arrivals.at_ns(index)
        if due_ns is None or (self.duration_ns is not None and due_ns >= self.duration_ns):
            return STOP
        return Send(due_ns)


@dataclass(slots=True)
class ClosedLoop:
    """A fixed number of requests in flight; the next is due as soon as one ends.

    None at all, for a worker that has no part in a small number, is over at once.
    """

    concurrency: int
    duration_ns: int | None = None
    requests: int | None = None

    @property
    def ends_ns(self) -> int | None:
        """The end, which comes where no request ends any more, too."""
        return self.duration_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """``Send`` at once while fewer than ``concurrency`` are in flight."""
        if self.concurrency == 0 or (self.requests is not None and sent >= self.requests):
            return STOP
        if self.duration_ns is not None and elapsed_ns >= self.duration_ns:
            return STOP
        return Send(elapsed_ns) if in_flight < self.concurrency else HOLD


@dataclass(slots=True)
class Capped:
    """An open loop whose client refuses to hold more than ``limit`` requests.

    The schedule does not move: a request held back keeps its deadline, so that its wait shows in the
    latency from *scheduled*. ``bound`` counts the decisions where the cap held something back. What is
    still held back ``patience_ns`` after the end is not sent any more: nothing has ended.
    """

    inner: Pacer
    limit: int
    patience_ns: int = 0
    bound: int = field(default=0)

    @property
    def ends_ns(self) -> int | None:
        """The end of the patience."""
        ends_ns = self.inner.ends_ns
        return None if ends_ns is None else ends_ns + self.patience_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """The inner decision, or ``Hold`` at the cap once the deadline has passed."""
        decision = self.inner.decide(elapsed_ns, sent, in_flight)
        if isinstance(decision, Send) and in_flight >= self.limit:
            self.bound += decision.deadline_ns <= elapsed_ns
            ends_ns = self.ends_ns
            return STOP if ends_ns is not None and elapsed_ns >= ends_ns else HOLD
        return decision


def schedule_ns(pacer: OpenLoop) -> Sequence[int]:
    """All deadlines of a bounded open loop, as tests and virtual time want them."""
    found: list[int] = []
    while isinstance(decision := pacer.decide(0, len(found), 0), Send):
        found.append(decision.deadline_ns)
    return found


def duration_ns(seconds: float | None) -> int | None:
    """Nanoseconds of an optional duration."""
    return None if seconds is None else ns_from_seconds(seconds)
