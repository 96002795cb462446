"""When a request is sent again, and what of its body is held for that."""

import socket
from pathlib import Path

import pytest

from proxy.api.endpoints import endpoint_of
from proxy.relay.exchange.replay import BodyBuffer, may_repeat, none_acknowledged

CHAT = endpoint_of("POST", "/v1/chat/completions")
VIDEOS = endpoint_of("POST", "/v1/videos")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_idempotent_methods_are_repeated(method: bytes) -> None:
    assert may_repeat(method, None, kept=True, unprocessed=False)
    assert may_repeat(method, None, kept=False, unprocessed=False)


def test_a_post_is_repeated_if_the_backend_cannot_have_processed_it() -> None:
    assert may_repeat(b"POST", None, kept=False, unprocessed=True)
    assert may_repeat(b"POST", VIDEOS, kept=True, unprocessed=True)


def test_a_post_that_may_have_been_processed_is_repeated_if_it_leaves_nothing_behind() -> None:
    assert may_repeat(b"POST", CHAT, kept=True, unprocessed=False)
    assert not may_repeat(b"POST", CHAT, kept=False, unprocessed=False), "the backend may have died of it"
    assert not may_repeat(b"POST", VIDEOS, kept=True, unprocessed=False)
    assert not may_repeat(b"POST", None, kept=True, unprocessed=False)
    assert not may_repeat(b"PATCH", None, kept=True, unprocessed=False)


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname()[:2])
        far, _ = server.accept()
    return near, far


def test_bytes_sent_to_a_closed_socket_are_not_acknowledged() -> None:
    near, far = connection()
    with near:
        far.close()
        near.send(b"x" * 100)
        assert none_acknowledged(near.fileno(), 100)


def test_bytes_that_the_peer_has_read_are_acknowledged() -> None:
    near, far = connection()
    with near:
        near.send(b"x" * 100)
        assert far.recv(100, socket.MSG_WAITALL)
        far.close()
        assert near.recv(1) == b""
        assert not none_acknowledged(near.fileno(), 100)


def test_what_is_no_socket_tells_nothing() -> None:
    with Path("/dev/null").open("rb") as file:
        assert not none_acknowledged(file.fileno(), 0)


def test_a_body_that_streams_through_is_held_while_it_is_small() -> None:
    small = BodyBuffer(None, present=True, reads=False)
    small.passed(b"ab")
    small.passed(b"c")
    assert small.repeatable
    assert small.pieces() == [b"ab", b"c"]
    large = BodyBuffer(None, present=True, reads=False)
    large.passed(b"x" * 1_000_000)
    large.passed(b"y")
    assert not large.repeatable
    assert large.pieces() == []


@pytest.mark.parametrize(("size", "reads"), [(10, True), (11, False)])
def test_a_body_that_grows_too_large_is_not_read(size: int, reads: bool) -> None:
    body = BodyBuffer(None, present=True, reads=True, limit=10)
    for _ in range(size):
        body.add(b"x")
    assert body.reads == reads
    assert body.joined() == b"x" * size


def test_a_body_is_dropped_once_it_will_not_be_sent_again() -> None:
    body = BodyBuffer(2, present=True, reads=True)
    body.add(b"{}")
    body.replace(b"{ }")
    assert body.length == 3
    body.forget()
    assert not body.repeatable
