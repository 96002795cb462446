"""The pump, on real sockets; only the compiled build has one (tests/test_compiled.py)."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chunks import count, shape_of
from proxy.clock import now_ns
from proxy.core.channel import Chunk
from proxy.relay.framing import chunk
from proxy.relay.link import MeterLink
from proxy.relay.pump import Pump
from tests.proxy.relay.test_lane import event, parsed, said

pumping = pytest.importorskip("proxy.relay.pumping", reason="not a compiled build")

ONE = chunk(event("one"))


class Ride:
    """A stream between two socket pairs: what is said to it comes out, or is left."""

    def __init__(self, stack: ExitStack, key: int = 7) -> None:
        self.backend, self.source = (stack.enter_context(end) for end in socket.socketpair())
        self.target, self.client = (stack.enter_context(end) for end in socket.socketpair())
        for end in (self.source, self.target, self.client):
            end.setblocking(False)
        shape = shape_of(event("one"))
        assert shape is not None
        self.stream = pumping.Stream(self.source.fileno(), self.target.fileno(), *shape, key)
        self.left_with: tuple[bytes, bytes] | None = None
        self.lost: str | None = None

    def left(self, unsent: bytes, unread: bytes) -> None:
        self.left_with = unsent, unread

    def lose(self, reason: str) -> None:
        self.lost = reason

    def received(self) -> bytes:
        try:
            return self.client.recv(1 << 20)
        except BlockingIOError:
            return b""


class Bench:
    """A pump, and what it told the meter."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.link = MeterLink("", 1_000_000)
        self.pump = Pump(self.link)

    def ride(self, key: int = 7) -> Ride:
        made = Ride(self.stack, key)
        self.pump.put(made.stream, made)
        return made

    def told(self) -> list[Chunk]:
        return [message for message in self.link._pending if isinstance(message, Chunk)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def test_chunks_pass_with_a_stamp_and_a_token_each(bench: Bench) -> None:
    ride = bench.ride(2**40)
    before = now_ns()
    ride.backend.send(ONE)
    bench.pump.run()
    ride.backend.send(ONE + chunk(event("two")))
    bench.pump.run()
    assert ride.received() == ONE + ONE + chunk(event("two"))
    stamps = [one.t_ns for one in bench.told()]
    assert bench.told() == [Chunk(2**40, t_ns, 1) for t_ns in stamps]
    assert before < stamps[0] < stamps[1] == stamps[2] == ride.stream.last_ns <= now_ns()
    assert ride.stream.tokens == 3
    assert ride.left_with is None


def test_what_came_before_it_was_put_passes_too(bench: Bench) -> None:
    ride = Ride(bench.stack)
    ride.backend.send(ONE)
    bench.pump.put(ride.stream, ride)
    bench.pump.run()
    assert ride.received() == ONE


@pytest.mark.parametrize("other", [chunk(event("")), ONE[:-1], ONE + b"0\r\n\r\n", b"x", ONE * 2 + b"9"])
def test_all_else_leaves_unread(bench: Bench, other: bytes) -> None:
    ride = bench.ride()
    ride.backend.send(ONE)
    bench.pump.run()
    ride.backend.send(other)
    bench.pump.run()
    assert ride.left_with == (b"", other)
    assert (ride.received(), len(bench.told()), ride.stream.tokens) == (ONE, 1, 1)
    ride.backend.send(ONE)
    bench.pump.run()
    assert ride.received() == b"", "it is off"


def test_a_backend_that_hangs_up_is_left_to_its_transport(bench: Bench) -> None:
    ended, with_rest = bench.ride(), bench.ride()
    ended.backend.close()
    with_rest.backend.send(ONE)
    with_rest.backend.close()
    bench.pump.run()
    assert ended.left_with == with_rest.left_with == (b"", b"")
    assert with_rest.received() == ONE


def test_a_client_that_does_not_read_leaves_with_what_was_not_sent(bench: Bench) -> None:
    ride = bench.ride()
    ride.target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = bytearray()
    while ride.left_with is None:
        ride.backend.send(ONE)
        sent += ONE
        bench.pump.run()
    unsent, unread = ride.left_with
    received = b""
    while more := ride.received():
        received += more
    assert (received + unsent, unread) == (bytes(sent), b"")
    assert unsent
    assert ride.stream.tokens * len(ONE) == len(sent)


def test_a_client_that_is_gone_leaves_with_all_of_it(bench: Bench) -> None:
    ride = bench.ride()
    ride.client.close()
    ride.backend.send(ONE)
    bench.pump.run()
    assert ride.left_with == (ONE, b"")


def test_a_flood_on_one_stream_leaves_the_others_their_turn(bench: Bench) -> None:
    kilobyte = chunk(event("x" * (1024 - len(chunk(event("x" * 900))) + 900)))
    flooded, other = bench.ride(), bench.ride()
    for end in (flooded.backend, flooded.target):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    flooded.backend.send(kilobyte * 64 + ONE)
    other.backend.send(ONE)
    bench.pump.run()
    assert other.received() == ONE
    assert flooded.received() == kilobyte * 64
    bench.pump.run()
    assert flooded.received() == ONE
    assert flooded.left_with is None


def test_more_streams_than_are_told_of_at_once(bench: Bench) -> None:
    rides = [bench.ride(key) for key in range(150)]
    for ride in rides:
        ride.backend.send(ONE)
    for _ in range(3):
        bench.pump.run()
    assert [ride.received() for ride in rides] == [ONE] * 150
    assert sorted(one.key for one in bench.told()) == list(range(150))


def test_a_stream_that_was_taken_off_passes_nothing_and_is_put_again(bench: Bench) -> None:
    ride = bench.ride()
    ride.backend.send(ONE)
    bench.pump.take(ride.stream)
    bench.pump.take(ride.stream)
    bench.pump.run()
    assert ride.received() == b""
    bench.pump.put(ride.stream, ride)
    bench.pump.run()
    assert ride.received() == ONE
    with pytest.raises(ValueError, match="not on a pump"):
        bench.pump.put(ride.stream, ride)
    assert ride.left_with is None


def test_what_a_rider_takes_off_when_another_left_is_not_told(bench: Bench) -> None:
    first, second = bench.ride(), bench.ride()

    class Breaks(Ride):
        def left(self, _unsent: bytes, _unread: bytes) -> None:
            bench.pump.take(first.stream)
            bench.pump.take(second.stream)

    breaks = Breaks(bench.stack)
    bench.pump.put(breaks.stream, breaks)
    for one in (breaks, first, second):
        one.backend.send(b"x")
    bench.pump.run()
    assert bench.pump._riders == {}
    assert first.left_with is second.left_with is None


def test_a_rider_that_fails_ends_and_no_other_does(bench: Bench) -> None:
    class Fails(Ride):
        def left(self, _unsent: bytes, _unread: bytes) -> None:
            raise RecursionError("too deep")

    fails = Fails(bench.stack)
    bench.pump.put(fails.stream, fails)
    other = bench.ride()
    for one in (fails, other):
        one.backend.send(b"x")
    bench.pump.run()
    assert fails.lost == "it cannot go on"
    assert (other.left_with, other.lost) == ((b"", b"x"), None)


def test_a_backend_that_resets_is_lost_for_that_reason(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = bench.stack.enter_context(socket.create_connection(server.getsockname()))
        source, _ = server.accept()
    ride = Ride(bench.stack)
    with source:
        stream = pumping.Stream(source.fileno(), ride.target.fileno(), b"a", b"b", 1)
        bench.pump.put(stream, ride)
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        backend.close()
        bench.pump.run()
    assert (ride.lost, ride.left_with) == ("Connection reset by peer", None)


def test_what_cannot_be_watched_is_an_error(bench: Bench) -> None:
    ride = Ride(bench.stack)
    ride.source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        bench.pump.put(ride.stream, ride)
    assert bench.pump._riders == {}


def test_only_so_many_chunks_are_kept_for_a_meter_that_is_away(bench: Bench) -> None:
    bench.link._limit = 2
    ride = bench.ride()
    ride.backend.send(ONE * 3)
    bench.pump.run()
    assert (len(bench.told()), bench.link._dropped) == (2, 1)


async def test_the_loop_runs_it(bench: Bench) -> None:
    bench.pump.open()
    ride = bench.ride()
    loop = asyncio.get_running_loop()
    for _ in range(3):
        ride.backend.send(ONE)
        assert await asyncio.wait_for(loop.sock_recv(ride.client, 1 << 16), 5) == ONE
    bench.pump.close()


@given(said())
def test_it_takes_what_the_lane_takes_and_what_the_parsers_would(made: tuple[bytes, int, bool]) -> None:
    data, _, _ = made
    shape = shape_of(event("one"))
    assert shape is not None
    taken = pumping.Stream(0, 1, *shape, 7).count(data)
    assert taken == count(data, *shape)
    if taken:
        whole, tokens = parsed(data)
        assert whole
        assert tokens <= taken


@given(st.binary(max_size=40))
def test_any_bytes_within_a_string_are_judged_alike(text: bytes) -> None:
    shape = shape_of(event("one"))
    assert shape is not None
    before, after = shape
    data = chunk(before + text + after[:-2])
    assert pumping.Stream(0, 1, before, after, 7).count(data) == count(data, before, after)
