"""Routes: which paths are metered, and what is read of a request."""

from typing import Final

import msgspec

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
_USAGE_ROUTES: Final = ("chat", "completions")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Asked(msgspec.Struct):
    """What a request body says that the proxy must know; all else is passed over unread."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_DECODER: Final = msgspec.json.Decoder(Asked)


def route_of(method: str, path: str) -> str | None:
    """The metered route of a request; None where nothing is metered."""
    if method != "POST":
        return None
    if path.startswith(_AUDIO):
        return "audio"
    return _ROUTES.get(path.rstrip("/"))


def asked(body: bytes) -> Asked:
    """What the body asks for; defaults where it is not the JSON of a request (the backend judges that)."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Asked()


def with_usage(route: str, body: bytes, request: Asked) -> bytes | None:
    """The body that asks for usage, too, every other byte as it was; None where that is not called for."""
    if route not in _USAGE_ROUTES or not request.stream or request.stream_options is not None:
        return None
    start = body.find(b"{")
    if start < 0:
        return None
    return body[: start + 1] + b'"stream_options":{"include_usage":true},' + body[start + 1 :]
