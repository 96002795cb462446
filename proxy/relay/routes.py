"""Routes: which paths are metered, and which requests are asked for usage."""

from typing import Final

from proxy.api.fields import RequestBody

_ROUTES: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
    "/v1/videos": "videos",
}
_AUDIO: Final = "/v1/audio/"
_USAGE_ROUTES: Final[tuple[str, ...]] = ("chat", "completions")


def route_of(method: str, path: str) -> str | None:
    """The metered route of a request; None where nothing is metered."""
    if method != "POST":
        return None
    if path.startswith(_AUDIO):
        return "audio"
    return _ROUTES.get(path.rstrip("/"))


def with_usage(route: str, body: bytes, request: RequestBody) -> bytes | None:
    """The body that asks for usage, too, every other byte as it was; None where that is not called for."""
    if route not in _USAGE_ROUTES or not request.stream or request.stream_options is not None:
        return None
    start = body.find(b"{")
    if start < 0:
        return None
    return body[: start + 1] + b'"stream_options":{"include_usage":true},' + body[start + 1 :]
