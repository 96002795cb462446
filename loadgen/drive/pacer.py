# Compiled by mypyc: see setup.py.
"""Pacers decide when the next request is due. Pure: time and load enter as arguments.

The attack calls ``decide(elapsed_ns, sent, in_flight)``. The result is ``Send(deadline_ns)`` (absolute,
since the start of the point; a deadline in the past means at once), ``Hold`` (decide again when a request
ends) or ``Stop``. Deadlines are absolute, so that delays do not accumulate. Open-loop pacers ignore
``in_flight``: arrivals do not wait for responses, so a slow server cannot slow down the load (coordinated
omission).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from loadgen.workload.arrivals import Arrivals
from proxy.units import ns_from_seconds


class Send:
    """Send the next request at ``deadline_ns`` since the start of the point.

    Not a dataclass: one is made for each decision, and mypyc does not compile a dataclass's ``__init__``.
    """

    __slots__ = ("deadline_ns",)

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to send until a request ends."""


@dataclass(frozen=True, slots=True)
class Stop:
    """No more requests to send."""


HOLD: Final = Hold()
STOP: Final = Stop()
Decision = Send | Hold | Stop


class Pacer(Protocol):
    """Decides when an attack sends."""

    @property
    def ends_ns(self) -> int | None:
        """When to decide again even if no request ends; None if decisions never depend on time alone."""

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """Return the next action, with ``sent`` requests sent so far and ``in_flight`` without an end."""


@dataclass(slots=True)
class OpenLoop:
    """Requests at the times of an arrival process, regardless of the server.

    ``worker`` of ``workers`` sends every ``workers``-th arrival of one common process, so that N workers
    together realise exactly the process that one worker would. (N processes with the same seed would repeat
    each gap N times.)
    """

    arrivals: Arrivals
    duration_ns: int | None = None
    requests: int | None = None
    worker: int = 0
    workers: int = 1

    @property
    def ends_ns(self) -> int | None:
        """The end of the arrivals."""
        return self.duration_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """Return the ``sent``-th of this worker's arrivals; never ``Hold``."""
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

    A worker whose share is zero stops at once.
    """

    concurrency: int
    duration_ns: int | None = None
    requests: int | None = None

    @property
    def ends_ns(self) -> int | None:
        """The end of the point, which applies even if no request ends."""
        return self.duration_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """Return ``Send`` while fewer than ``concurrency`` requests are in flight."""
        if self.concurrency == 0 or (self.requests is not None and sent >= self.requests):
            return STOP
        if self.duration_ns is not None and elapsed_ns >= self.duration_ns:
            return STOP
        return Send(elapsed_ns) if in_flight < self.concurrency else HOLD


@dataclass(slots=True)
class Capped:
    """An open loop with at most ``limit`` requests in flight.

    The schedule does not shift: a delayed request keeps its deadline, so that its wait is part of the latency
    from *scheduled*. ``bound`` counts the decisions in which the cap delayed a request. Requests that are
    still delayed ``patience_ns`` after the end are not sent.
    """

    inner: Pacer
    limit: int
    patience_ns: int = 0
    bound: int = field(default=0)

    @property
    def ends_ns(self) -> int | None:
        """The end of the inner pacer plus the patience."""
        ends_ns = self.inner.ends_ns
        return None if ends_ns is None else ends_ns + self.patience_ns

    def decide(self, elapsed_ns: int, sent: int, in_flight: int) -> Decision:
        """Return the inner decision, or ``Hold`` at the cap."""
        decision = self.inner.decide(elapsed_ns, sent, in_flight)
        if isinstance(decision, Send) and in_flight >= self.limit:
            self.bound += decision.deadline_ns <= elapsed_ns
            ends_ns = self.ends_ns
            return STOP if ends_ns is not None and elapsed_ns >= ends_ns else HOLD
        return decision


def schedule_ns(pacer: OpenLoop) -> Sequence[int]:
    """Return all deadlines of an open loop that ends, in nanoseconds; for tests and virtual time."""
    found: list[int] = []
    while isinstance(decision := pacer.decide(0, len(found), 0), Send):
        found.append(decision.deadline_ns)
    return found


def duration_ns(seconds: float | None) -> int | None:
    """Return an optional duration in nanoseconds."""
    return None if seconds is None else ns_from_seconds(seconds)
