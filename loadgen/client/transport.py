# Compiled by mypyc: see setup.py.
"""TCP connections whose reads carry the arrival time of their bytes, however late the process reads them.

A time taken when the process reads includes the wait behind all other streams of its event loop. Linux stamps
each segment on arrival (SO_TIMESTAMPNS, socket(7); for TCP since 4.13), and a read returns the stamp of its
last segment. On other systems, and under TLS, the stamp is taken when the loop reads, before any parsing.
"""

import asyncio
import atexit
import functools
import platform
import socket
import ssl
import struct
import sys
import time
from typing import Final, Protocol

from proxy.units import NS_PER_SECOND

_READ_BYTES: Final = 65536
_CONTROL_BYTES: Final = 64  # one control message with a struct timespec, 32 bytes
_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; the number differs on some other architectures
_STAMPED: Final = sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"}
_PAIR: Final = struct.Struct("qq").unpack
_OFFSET_HOLDS_NS: Final = 50_000_000  # clock slewing is below 500 ppm: 25 us in this time
_OLDEST_NS: Final = 60 * NS_PER_SECOND  # on an overloaded machine a read may be seconds late


class Owner(Protocol):
    """Receives the events of a transport; ``lost`` is the last one and comes once at most."""

    def received(self, data: bytes, t_ns: int) -> None:
        """Receive bytes and their arrival time, monotonic nanoseconds."""

    def lost(self, error: OSError | None) -> None:
        """Receive the end of the connection: closed by the peer (None) or broken.

        Not called after the owner's own ``close``.
        """


class Transport(Protocol):
    """One connection, plain or TLS."""

    def write(self, data: bytes) -> None:
        """Write to the socket at once; buffer and send later what its buffer has no room for."""

    def close(self) -> None:
        """Close the connection and discard unsent data."""

    @property
    def open(self) -> bool:
        """Whether the connection can be written to."""


class StampClock:
    """Converts the kernel's wall-clock stamps to the monotonic clock."""

    __slots__ = ("_offset_ns", "_until_ns")

    def __init__(self) -> None:
        self._offset_ns = self._until_ns = 0

    def monotonic(self, stamp_ns: int, now_ns: int) -> int:
        """Return the monotonic time of a stamp.

        A result in the future, or more than a minute old, means that the wall clock was set: then ``now_ns``.
        """
        if now_ns >= self._until_ns:
            self._measure()
            self._until_ns = now_ns + _OFFSET_HOLDS_NS
        found = stamp_ns - self._offset_ns
        return found if now_ns - _OLDEST_NS < found <= now_ns else now_ns

    def _measure(self) -> None:
        """Measure the offset of the clocks from the narrowest of three readings.

        The process may be preempted between two of its readings, which widens the pair.
        """
        readings = []
        for _ in range(3):
            before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            readings.append((after - before, wall - (before + after) // 2))
        self._offset_ns = min(readings)[1]


_CLOCK: Final = StampClock()


class PlainTransport:
    """A connected TCP socket on the running loop."""

    __slots__ = ("_fd", "_loop", "_owner", "_rest", "_sock")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner) -> None:
        self._loop, self._sock, self._owner = loop, sock, owner
        self._rest = bytearray()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamp_reads(sock)
        self._fd = sock.fileno()
        loop.add_reader(self._fd, self._readable)

    @property
    def open(self) -> bool:
        """Whether the connection can be written to."""
        return self._fd >= 0

    def write(self, data: bytes) -> None:
        """Write to the socket at once; buffer and send later what its buffer has no room for."""
        if self._rest:
            self._rest += data
            return
        sent = self._send(data)
        if sent < len(data) and self._fd >= 0:
            self._rest += data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def close(self) -> None:
        """Close the connection and discard unsent data."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._rest.clear()
            self._sock.close()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except OSError:  # full, or broken: then the next read reports the error
            return 0

    def _writable(self) -> None:
        del self._rest[: self._send(self._rest)]
        if not self._rest:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            data, notes, _, _ = self._sock.recvmsg(_READ_BYTES, _CONTROL_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        now = time.monotonic_ns()
        if not data:
            self._lose(None)
            return
        if notes:
            seconds, rest = _PAIR(notes[0][2])
            now = _CLOCK.monotonic(seconds * NS_PER_SECOND + rest, now)
        self._owner.received(data, now)

    def _lose(self, error: OSError | None) -> None:
        self.close()
        self._owner.lost(error)


class TlsTransport(asyncio.Protocol):
    """A TLS connection; stamped by the process, since the kernel stamps encrypted segments, not records."""

    __slots__ = ("_owner", "_transport")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        """Whether the connection can be written to."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write at the end of this iteration of the loop."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection and discard unsent data."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the asyncio transport."""
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base

    def data_received(self, data: bytes) -> None:
        """Stamp the bytes and pass them to the owner."""
        self._owner.received(data, time.monotonic_ns())

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection, unless it was closed here."""
        if self._transport is not None:
            self._transport = None
            self._owner.lost(exc if isinstance(exc, OSError) or exc is None else OSError(str(exc)))


def stamp_reads(sock: socket.socket) -> None:
    """Enable the kernel's stamps; the sockets that a listening socket accepts inherit the option."""
    if _STAMPED:
        _keep_stamping()
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


@functools.cache
def _keep_stamping() -> socket.socket:
    """Return an unused socket with stamps enabled that stays open until the process exits.

    Linux stamps packets only while some socket requests it, and switches this on and off with a delay
    (net_enable_timestamp). Without this socket the first bytes of a single connection had no stamp.
    """
    kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    kept.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    atexit.register(kept.close)
    return kept


async def connect(host: str, port: int, tls: ssl.SSLContext | None, owner: Owner) -> Transport:
    """Connect to the first address of the host that accepts; raises ``OSError`` with the last failure."""
    loop = asyncio.get_running_loop()
    if tls is not None:
        return (await loop.create_connection(lambda: TlsTransport(owner), host, port, ssl=tls))[1]
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await _addresses(loop, host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            failure = error
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
        else:
            return PlainTransport(loop, sock, owner)
    raise failure


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> "list[_Address]":
    try:  # a literal address needs neither the resolver nor its thread
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
