"""What is metered, and who is asked for usage."""

import pytest

from proxy.api.fields import REQUEST, RequestBody
from proxy.relay.routes import route_of, with_usage


def request(body: bytes) -> RequestBody:
    return REQUEST.decode(body, []) or RequestBody()


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/v1/chat/completions/", "chat"),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/audio/speech", "audio"),
        ("POST", "/v2/chat/completions", None),
    ],
)
def test_known_paths_are_metered(method: str, path: str, route: str | None) -> None:
    assert route_of(method, path) == route


def test_usage_is_asked_for_where_a_stream_does_not_say() -> None:
    body = b' {"stream":true}'
    assert (
        with_usage("chat", body, request(body)) == b' {"stream_options":{"include_usage":true},"stream":true}'
    )
    assert with_usage("embeddings", body, request(body)) is None
    body = b'{"stream":true,"stream_options":{}}'
    assert with_usage("chat", body, request(body)) is None
