# Compiled by mypyc: see setup.py.
"""The link to the meter: events out, energy answers in; serving waits for neither.

Messages are buffered up to a bound and written every few milliseconds, together: a write costs as much as
a streamed chunk, and the meter puts events in order over a longer time than that. Over the bound, chunks are
dropped first and counted; their number is reported to the meter. When the meter dies the link reconnects and
reports the running requests to the next one.
"""

import asyncio
import itertools
import logging
from typing import Final, Protocol, cast

import msgspec

from proxy.clock import now_ns
from proxy.ipc import (
    BackendState,
    Chunk,
    Dropped,
    EnergyQuery,
    FrameBuffer,
    Leaving,
    Opened,
    RelayState,
    ToMeter,
    decode_to_relay,
    encode_frames,
)
from proxy.units import ns_from_seconds

_GATHER_SECONDS: Final = 0.02
_RECONNECT_SECONDS: Final[tuple[float, ...]] = (0.05, 0.1, 0.2, 0.5, 1.0)
_log = logging.getLogger(__name__)


class Running(Protocol):
    """A request whose response has not ended."""

    def replay_messages(self, t_ns: int) -> list[ToMeter]:
        """Return the messages that report this request to a meter that has just started."""


class MeterLink:
    """``send`` never blocks or fails; ``request_energy`` returns None if the meter does not reply in time.

    ``running`` maps keys to requests that were reported and have not ended; ``RequestMeter`` maintains it.
    """

    def __init__(self, socket: str, limit: int) -> None:
        self._socket = socket
        self._limit = limit
        self._pending: list[ToMeter] = []
        self._dropped = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._query_numbers = itertools.count(1)
        self._transport: asyncio.WriteTransport | None = None
        self._flushing = False
        self._full = False
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.running: dict[int, Running] = {}

    async def open(self) -> None:
        """Start connecting in a task; return immediately."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """Send what is left, then close."""
        self._flush()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()

    def send(self, message: ToMeter) -> None:
        """Queue one message."""
        if len(self._pending) >= self._limit:
            self._dropped += 1
            self._make_room()
        self._pending.append(message)
        if not self._flushing:
            self._flush_soon()

    def send_chunk(self, chunk: Chunk) -> None:
        """Queue a chunk, if there is room."""
        if len(self._pending) >= self._limit:
            self._dropped += 1
            return
        self._pending.append(chunk)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._transport is not None:
            self._flushing = True
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._flush)

    def announce_drain(self) -> None:
        """Report to this meter, and to the next, that this relay accepts no more requests."""
        self._leaving = True
        if self._transport is not None:
            self.send(Leaving())

    def report(self, state: BackendState | RelayState) -> None:
        """Queue a status message; drop it while no meter is connected."""
        if self._transport is not None and not self._full:
            self.send(state)

    def _make_room(self) -> None:
        for index, message in enumerate(self._pending):
            if isinstance(message, Chunk):
                del self._pending[index]
                return
        del self._pending[0]

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if transport is None or transport.is_closing() or self._full or not self._pending:
            return
        if self._dropped:
            self._pending.append(Dropped(self._dropped))
            self._dropped = 0
        pending, self._pending = self._pending, []
        for frame in encode_frames(pending):
            if frame is None:
                self._dropped += 1
            else:
                transport.write(frame)

    async def request_energy(
        self, request: str, key: int, wait_seconds: float, bound_seconds: float
    ) -> bytes | None:
        """Return the energy of a request as JSON; None without a reply within ``bound_seconds``.

        The meter waits up to ``wait_seconds`` for the final value before it replies.
        """
        if self._transport is None:
            return None
        number = next(self._query_numbers)
        response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = response
        self.send(EnergyQuery(number, request, now_ns(), ns_from_seconds(wait_seconds), key=key))
        self._flush()
        try:
            async with asyncio.timeout(bound_seconds):
                return await response
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(number, None)

    def energy_received(self, number: int, energy: bytes) -> None:
        """Complete the ``request_energy`` call of this number."""
        response = self._waiting.get(number)
        if response is not None and not response.done():
            response.set_result(energy)

    def connected(self, transport: asyncio.WriteTransport) -> None:
        """Start sending over a connection to the meter."""
        self._transport = transport
        if self._leaving:
            self._pending.append(Leaving())
        self._flush()

    def full(self, *, full: bool) -> None:
        """Stop sending while the meter reads too slowly; messages are kept up to the bound."""
        self._full = full
        if not full:
            self._flush()

    def disconnected(self) -> None:
        """Handle a lost meter: pending ``request_energy`` calls time out."""
        self._transport = None
        self._full = False
        self._lost.set()
        self._pending = self._so_far(self._pending)

    def _so_far(self, unsent: list[ToMeter]) -> list[ToMeter]:
        """Return the messages for the next meter: the state of running requests, then unsent ones."""
        begun = {message.key for message in unsent if isinstance(message, Opened)}
        t_ns = now_ns()
        repeat = [
            m
            for key, request_meter in self.running.items()
            if key not in begun
            for m in request_meter.replay_messages(t_ns)
        ]
        received = self.running.keys() - begun  # which include their unsent chunks
        return repeat + [m for m in unsent if not (isinstance(m, Chunk) and m.key in received)]

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        for delay in itertools.chain(_RECONNECT_SECONDS, itertools.repeat(_RECONNECT_SECONDS[-1])):
            self._lost.clear()
            try:
                await loop.create_unix_connection(lambda: _LinkProtocol(self), self._socket)
            except OSError as error:
                _log.debug("meter not reachable: %s", error)
            else:
                await self._lost.wait()
                _log.warning("meter disconnected; continuing without it, events are kept up to the bound")
            await asyncio.sleep(delay)


class _LinkProtocol(asyncio.Protocol):
    def __init__(self, link: MeterLink) -> None:
        self._link = link
        self._frames = FrameBuffer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.connected(cast(asyncio.WriteTransport, transport))  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                for message in decode_to_relay(body):
                    self._link.energy_received(message.number, message.energy)
        except (msgspec.MsgspecError, ValueError) as error:
            _log.error("malformed frame from the meter: %s", error)

    def pause_writing(self) -> None:
        self._link.full(full=True)

    def resume_writing(self) -> None:
        self._link.full(full=False)

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.disconnected()
