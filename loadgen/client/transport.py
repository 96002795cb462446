# Compiled by mypyc: see setup.py.
"""TCP connections whose reads carry the time their bytes came, however late the reader is.

A stamp taken by the reader waits behind all other streams of its event loop. Linux stamps each segment
as it arrives (SO_TIMESTAMPNS, socket(7); for TCP since 4.13), and a read brings the stamp of its last
segment along. Elsewhere, and under TLS, the stamp is taken when the loop reads, before any parsing.
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
_SPACE: Final = 64
_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; some other processors number it otherwise
_STAMPED: Final = sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"}
_PAIR: Final = struct.Struct("qq").unpack
_OFFSET_HOLDS_NS: Final = 50_000_000
_OLDEST_NS: Final = 60 * NS_PER_SECOND  # a read may be late by seconds where a machine is overrun


class Owner(Protocol):
    """Whom a wire tells what it reads; ``lost`` comes last, once."""

    def received(self, data: bytes, t_ns: int) -> None:
        """Bytes, and when they came (monotonic)."""

    def lost(self, error: OSError | None) -> None:
        """The peer closed (None), or the connection broke. Not told of one's own ``close``."""


class Wire(Protocol):
    """One connection, plain or TLS."""

    def write(self, data: bytes) -> None:
        """To the socket at once; what does not fit follows as soon as it can."""

    def close(self) -> None:
        """Drop the connection and whatever is on its way."""

    @property
    def open(self) -> bool:
        """Whether it may be written to."""


class StampClock:
    """Turns stamps of the wall clock, as the kernel gives them, into monotonic ones."""

    __slots__ = ("_offset_ns", "_until_ns")

    def __init__(self) -> None:
        self._offset_ns = self._until_ns = 0

    def monotonic(self, stamp_ns: int, now_ns: int) -> int:
        """When it was, or ``now_ns`` where that cannot be: the wall clock was set in between."""
        if now_ns >= self._until_ns:
            self._measure()
            self._until_ns = now_ns + _OFFSET_HOLDS_NS
        found = stamp_ns - self._offset_ns
        return found if now_ns - _OLDEST_NS < found <= now_ns else now_ns

    def _measure(self) -> None:
        """The narrowest of three looks at both clocks: the process may lose its core between two."""
        looks = []
        for _ in range(3):
            before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            looks.append((after - before, wall - (before + after) // 2))
        self._offset_ns = min(looks)[1]


_CLOCK: Final = StampClock()


class PlainWire:
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
        """Whether it may be written to."""
        return self._fd >= 0

    def write(self, data: bytes) -> None:
        """To the socket at once; what does not fit follows as soon as it can."""
        if self._rest:
            self._rest += data
            return
        sent = self._send(data)
        if sent < len(data) and self._fd >= 0:
            self._rest += data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def close(self) -> None:
        """Drop the connection and whatever is on its way."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._rest.clear()
            self._sock.close()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except OSError:  # full, or broken: then the next read says how
            return 0

    def _writable(self) -> None:
        del self._rest[: self._send(self._rest)]
        if not self._rest:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            data, notes, _, _ = self._sock.recvmsg(_READ_BYTES, _SPACE)
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


class TlsWire(asyncio.Protocol):
    """A TLS connection: what the kernel stamps is not what is read."""

    __slots__ = ("_owner", "_transport")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        """Whether it may be written to."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """At the end of this turn of the loop."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Drop the connection and whatever is on its way."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base

    def data_received(self, data: bytes) -> None:
        """Stamp and hand on."""
        self._owner.received(data, time.monotonic_ns())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of an end that was not one's own."""
        if self._transport is not None:
            self._transport = None
            self._owner.lost(exc if isinstance(exc, OSError) or exc is None else OSError(str(exc)))


def stamp_reads(sock: socket.socket) -> None:
    """Ask for the kernel's stamps; a listening socket hands that on to those it accepts."""
    if _STAMPED:
        _keep_stamping()
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


@functools.cache
def _keep_stamping() -> socket.socket:
    """A socket that asks for stamps as long as this process lives, and gets none.

    Linux stamps nothing while no socket asks, and switches that on and off some time after the first
    asks and the last is closed (net_enable_timestamp): the first bytes of a lone connection had none.
    """
    kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    kept.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    atexit.register(kept.close)
    return kept


async def dial(host: str, port: int, tls: ssl.SSLContext | None, owner: Owner) -> Wire:
    """Connect, to the first of the host's addresses that answers; raises ``OSError``."""
    loop = asyncio.get_running_loop()
    if tls is not None:
        return (await loop.create_connection(lambda: TlsWire(owner), host, port, ssl=tls))[1]
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
            return PlainWire(loop, sock, owner)
    raise failure


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> "list[_Address]":
    try:  # a literal needs no resolver, and no thread for it
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
