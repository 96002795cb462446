"""Which requests are metered, read, asked for usage, and may be sent twice."""

import pytest

from proxy.api.endpoints import endpoint_of


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/chat/completions/", "chat"),
        ("//v1///chat/completions", "chat"),
        ("/chat/completions", "chat"),
        ("/v3/chat/completions", "chat"),
        ("/openai/v1/chat/completions", "chat"),
        ("/openai/deployments/my-gpt/chat/completions", "chat"),
        ("/v1/engines/ada/completions", "completions"),
        ("/v1beta/openai/chat/completions", "chat"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings/", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/v2/rerank", "rerank"),
        ("/rerank", "rerank"),
        ("/score", "score"),
        ("/v1/score", "score"),
        ("/pooling", "pooling"),
        ("/v1/classify", "classify"),
        ("/invocations", "invocations"),
        ("/v1/audio/speech", "audio"),
        ("/v1/audio/something/new", "audio"),
        ("/generate", "completions"),
        ("/completion", "completions"),
        ("/infill", "completions"),
        ("/embedding", "embeddings"),
        ("/embed", "embeddings"),
        ("/v2/embed", "embeddings"),
        ("/api/chat", "chat"),
        ("/v1/videos/7/remix", "videos"),
    ],
)
def test_paths_that_make_an_engine_compute_are_metered(path: str, route: str) -> None:
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    assert endpoint.route == route


@pytest.mark.parametrize("path", ["/tokenize", "/v1/detokenize", "/v1/messages/count_tokens"])
def test_tokenizers_are_read_for_their_model_and_not_metered(path: str) -> None:
    endpoint = endpoint_of("POST", path)
    assert endpoint is not None
    assert endpoint.route is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("POST", "/"),
        ("POST", "/v1"),
        ("POST", "/v1/embeddings/x"),
        ("POST", "/admin/score"),
        ("POST", "/scores"),
        ("POST", "/v1/files"),
    ],
)
def test_other_requests_pass_unread(method: str, path: str) -> None:
    assert endpoint_of(method, path) is None


def test_usage_is_asked_for_where_streams_know_the_option() -> None:
    asked = {path: endpoint_of("POST", path) for path in ("/v1/chat/completions", "/v1/completions")}
    assert all(endpoint and endpoint.asks_usage for endpoint in asked.values())
    for path in ("/v1/messages", "/v1/responses", "/generate", "/api/chat", "/completion"):
        endpoint = endpoint_of("POST", path)
        assert endpoint is not None
        assert not endpoint.asks_usage


def test_what_creates_something_is_not_sent_twice() -> None:
    for path, repeatable in (("/v1/videos", False), ("/v1/responses", False), ("/v1/messages", True)):
        endpoint = endpoint_of("POST", path)
        assert endpoint is not None
        assert endpoint.repeatable == repeatable
