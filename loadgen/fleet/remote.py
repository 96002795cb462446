"""The interface of a worker in another process or on another machine."""

from typing import Protocol

from loadgen.drive.attack import Outcome, Progress


class WorkerError(Exception):
    """A worker died or cannot do what it was told; the text names it."""


class Remote(Protocol):
    """The methods of :class:`loadgen.fleet.worker.Worker`; each may raise ``WorkerError``."""

    name: str

    async def clock(self) -> int:
        """Its monotonic clock, nanoseconds."""

    async def prepare(self, number: int, level: float) -> None:
        """Get ready for a point."""

    async def go(self, start_ns: int) -> Outcome:
        """Do it."""

    async def progress(self) -> Progress:
        """How far it is."""

    async def interrupt(self) -> None:
        """End it now."""

    async def close(self) -> None:
        """End the worker."""
