"""Where the tokens of an answer go: counted until the last, and, streamed, written as they come.

A token is written by the engine's own call, into the connection's buffer: waking a task for each would cost
more than all the rest of it.
"""

import asyncio
from collections.abc import Sequence

from proxy.simulator.engine.job import Job
from proxy.simulator.server.responses import Stream
from proxy.simulator.server.runner import Sink


class Outlet:
    """Waits for the last token of ``count`` jobs: ``await ended``, False when the engine failed."""

    def __init__(self, count: int) -> None:
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._left = count

    def sink(self, index: int) -> Sink:
        """For the job of a number."""

        def sink(more: bool | None) -> None:
            self.token(index, more)

        return sink

    def token(self, index: int, more: bool | None) -> None:
        """One token of a job; ``more``: others follow, None: the engine has failed."""
        del index
        if more:
            return
        self._left -= more is not None
        if not self.ended.done() and (more is None or not self._left):
            self.ended.set_result(more is not None)


class StreamOutlet(Outlet):
    """Writes the events of a streamed answer; what comes before ``open`` is written then."""

    def __init__(self, events: Stream, jobs: Sequence[Job]) -> None:
        super().__init__(len(jobs))
        self._events = events
        self._jobs = jobs
        self._early: list[tuple[int, bool, int]] = []
        self._transport: asyncio.WriteTransport | None = None
        self._chunked = True
        self._begun = False

    def open(self, transport: asyncio.WriteTransport, *, chunked: bool) -> None:
        """Start the body after the response head was sent; ``chunked``: with chunked encoding (HTTP/1.1)."""
        self._transport, self._chunked = transport, chunked
        for index, more, count in self._early:
            self._write(index, more, count)

    def token(self, index: int, more: bool | None) -> None:
        """Send the tokens that a job gained in a step."""
        if more is not None:
            count = self._jobs[index].gained
            if self._transport is None:
                self._early.append((index, more, count))
            else:
                self._write(index, more, count)
        if not more:
            super().token(index, more)

    def _write(self, index: int, more: bool, count: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        data = self._events.token(index, more=more, count=count)
        if not self._begun:
            self._begun = True
            data = self._events.first() + data
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
