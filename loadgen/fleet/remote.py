"""The interface of a worker in another process or on another machine."""

from typing import Protocol

from loadgen.drive.attack import Outcome, Progress


class WorkerError(Exception):
    """A worker died or failed; the message names it."""


class Remote(Protocol):
    """The methods of :class:`loadgen.fleet.worker.Worker`; each may raise ``WorkerError``."""

    name: str

    async def clock(self) -> int:
        """Return its monotonic clock, nanoseconds."""

    async def prepare(self, number: int, level: float) -> None:
        """Prepare a point: schedule, first request, connections."""

    async def go(self, start_ns: int) -> Outcome:
        """Run the point from ``start_ns`` of the worker's clock; return its outcome."""

    async def progress(self) -> Progress:
        """Return the progress of the point."""

    async def interrupt(self) -> None:
        """End the point now."""

    async def close(self) -> None:
        """Stop the worker."""
