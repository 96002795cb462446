"""Stamps that do not depend on when the reader comes to read, over real sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from loadgen.client import transport
from loadgen.client.transport import PlainTransport, StampClock, Transport, connect
from proxy.units import NS_PER_SECOND
from tests.timing import PATIENCE_SECONDS

MS = 1_000_000
LATE_SECONDS = 0.2

kernel_stamps = pytest.mark.skipif(not transport._STAMPED, reason="the kernel stamps reads on Linux only")


@dataclass
class Heard:
    """An owner that records its events."""

    reads: list[tuple[bytes, int]] = field(default_factory=list)
    ends: list[OSError | None] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def received(self, data: bytes, t_ns: int) -> None:
        self.reads.append((data, t_ns))
        self.told.set()

    def lost(self, error: OSError | None) -> None:
        self.ends.append(error)
        self.told.set()


@dataclass
class Pair:
    """A wire and the plain socket at its other end."""

    wire: Transport
    heard: Heard
    peer: socket.socket


@pytest.fixture
def stamping() -> None:
    """Wait until Linux stamps packets, some time after the first socket of the machine enables it."""
    until = time.monotonic_ns() + round(PATIENCE_SECONDS * NS_PER_SECOND)
    ours, peer = _connected()
    with ours, peer:
        transport.stamp_reads(ours)
        peer.send(b"x")
        while not _read_stamps(ours):
            assert time.monotonic_ns() < until
            peer.send(b"x")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    heard = Heard()
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = await connect("127.0.0.1", server.getsockname()[1], None, heard)
        peer, _ = server.accept()
    with peer:
        yield Pair(made, heard, peer)
        made.close()


@kernel_stamps
@pytest.mark.usefixtures("stamping")
def test_the_kernel_goes_on_stamping_while_no_connection_is_open() -> None:
    until = time.monotonic_ns() + 50 * MS  # it would stop some time after the last was closed
    while time.monotonic_ns() < until:
        ours, peer = _connected()
        with ours, peer:
            peer.send(b"x")  # before this socket enables stamps
            transport.stamp_reads(ours)
            assert _read_stamps(ours)


@kernel_stamps
@pytest.mark.usefixtures("stamping")
async def test_a_late_read_has_the_arrival_time_of_its_bytes(pair: Pair) -> None:
    before = time.monotonic_ns()
    pair.peer.send(b"first")
    time.sleep(LATE_SECONDS)  # noqa: ASYNC251 - the loop is held up, as by the work of other streams
    read = time.monotonic_ns()
    await pair.heard.told.wait()
    ((data, stamp),) = pair.heard.reads
    assert data == b"first"
    # A busy machine may run the kernel's receiving half late, too, but not by as much as the reader was.
    assert before - MS < stamp < read - LATE_SECONDS * NS_PER_SECOND / 2


async def test_without_the_kernels_stamps_the_read_itself_is_stamped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_STAMPED", False)
    heard = Heard()
    ours, peer = _connected()
    made = PlainTransport(asyncio.get_running_loop(), ours, heard)
    before = time.monotonic_ns()
    peer.send(b"x")
    await heard.told.wait()
    made.close()
    peer.close()
    assert before <= heard.reads[0][1] <= time.monotonic_ns()


def _read_stamps(ours: socket.socket) -> list[tuple[int, int, bytes]]:
    return ours.recvmsg(1, 64)[1]


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


async def test_data_beyond_the_socket_buffer_arrives_completely_and_in_order(pair: Pair) -> None:
    loop = asyncio.get_running_loop()
    pair.peer.setblocking(False)
    first, second = b"a" * 20_000_000, b"b" * 1000
    pair.wire.write(first)
    pair.wire.write(second)
    got = bytearray()
    while len(got) < len(first) + len(second):
        got += await asyncio.wait_for(loop.sock_recv(pair.peer, 1 << 20), PATIENCE_SECONDS)
    assert got == first + second


async def test_the_end_of_the_peer_is_reported_once_and_the_own_close_is_not(pair: Pair) -> None:
    pair.peer.close()
    await pair.heard.told.wait()
    pair.wire.close()
    assert pair.heard.ends == [None]
    assert not pair.wire.open
    pair.wire.write(b"to nobody")


async def test_a_reset_is_reported_as_an_error(pair: Pair) -> None:
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.peer.close()
    await pair.heard.told.wait()
    assert isinstance(pair.heard.ends[0], ConnectionResetError)


async def test_names_are_resolved_and_a_refused_connection_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (await connect("localhost", port, None, Heard())).close()
    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", port, None, Heard())


def test_a_wall_clock_set_back_or_forth_does_not_move_a_stamp() -> None:
    clock = StampClock()
    before, wall, now = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    assert before - 4 * MS <= clock.monotonic(wall - 3 * MS, now) <= now - 2 * MS
    assert clock.monotonic(wall + 10**13, now) == now
    assert clock.monotonic(wall - 10**13, now) == now
