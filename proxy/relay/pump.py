"""Streams that pass in compiled code (pumping.c), chunk by chunk, as :class:`~proxy.relay.lane.Lane` would.

The loop wakes this for a burst of chunks, not for each: a chunk is a read, a comparison and a write. An
interpreted install has no pump, and lanes do all of it.
"""

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Protocol

from proxy.core.channel import Chunk
from proxy.relay.link import MeterLink

if TYPE_CHECKING:
    from proxy.relay.pumping import Stream

_log = logging.getLogger(__name__)


class Rider(Protocol):
    """Whose stream is on the pump."""

    def left(self, unsent: bytes, unread: bytes) -> None:
        """It is off: what was read and passed but not sent, and what was read and is not like the rest."""

    def lose(self, reason: str) -> None:
        """It is off, and cannot be read any more."""


class Pump:
    """Raises ``ImportError`` where it is not built."""

    def __init__(self, link: MeterLink) -> None:
        from proxy.relay import pumping  # noqa: PLC0415 - it may not be there

        self._link = link
        self._pump = pumping.Pump(Chunk)
        self.stream = pumping.Stream
        self._riders: dict[Stream, Rider] = {}

    def open(self) -> None:
        """Begin, on the running loop."""
        asyncio.get_running_loop().add_reader(self._pump.fileno(), self.run)

    def close(self) -> None:
        """End; all streams are off."""
        asyncio.get_running_loop().remove_reader(self._pump.fileno())

    def put(self, stream: "Stream", rider: Rider) -> None:
        """Pass on what comes; raises ``OSError``.

        Until it is off both sockets must stay open, and nobody else may read the source or write the target.
        """
        self._pump.put(stream)
        self._riders[stream] = rider

    def take(self, stream: "Stream") -> None:
        """Off; its rider is told nothing."""
        if self._riders.pop(stream, None) is not None:
            self._pump.take(stream)

    def run(self) -> None:
        """Pass on what came, tell the meter, and those whose stream left."""
        chunks, left = self._pump.run()
        if chunks:
            self._link.send_chunks(chunks)
        for stream, unsent, unread, why in left:
            rider = self._riders.pop(stream, None)
            if rider is None:
                continue
            try:
                if why:
                    rider.lose(os.strerror(why))
                else:
                    rider.left(unsent, unread)
            except Exception:  # noqa: BLE001 - as a transport does: the rider ends, the others go on
                _log.exception("a stream cannot go on")
                rider.lose("it cannot go on")


def pump_if_built(link: MeterLink) -> Pump | None:
    """A pump, in a compiled install."""
    try:
        return Pump(link)
    except ImportError:
        return None
    except OSError as error:
        _log.warning("no pump, streams go the longer way: %s", error)
        return None


def descriptor(transport: asyncio.Transport | None) -> int | None:
    """Of its socket; None where its bytes are not the socket's (TLS), or some wait to be written."""
    if transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return None
    if transport.get_extra_info("sslcontext") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None else int(sock.fileno())
