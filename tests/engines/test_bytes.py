"""Responses of vLLM, above all errors, are delivered byte for byte."""

import json
import re
from collections.abc import Mapping

import httpx
import pytest

from tests.engines.proxied import Jouleproxy
from tests.engines.vllm import MAX_MODEL_LEN, NAME, Vllm

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "Hello"}]


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


# name -> method, path, body, headers over the client's own
ERRORS: Mapping[str, tuple[str, str, bytes | None, Mapping[str, str]]] = {
    "400 no messages": ("POST", CHAT, _json(model=NAME), {}),
    "400 bad json": ("POST", CHAT, b'{"model": "tiny", ', {}),
    "400 max_tokens": ("POST", CHAT, _json(model=NAME, messages=USER, max_tokens=-1), {}),
    "400 temperature": ("POST", CHAT, _json(model=NAME, messages=USER, temperature=-3), {}),
    "400 stream_options": (
        "POST",
        CHAT,
        _json(model=NAME, messages=USER, stream_options={"include_usage": True}),
        {},
    ),
    "400 too long": (
        "POST",
        CHAT,
        _json(model=NAME, messages=[{"role": "user", "content": "a" * MAX_MODEL_LEN}]),
        {},
    ),
    "401": ("GET", "/v1/models", None, {"authorization": "Bearer wrong"}),
    "401 metered path": (
        "POST",
        CHAT,
        _json(model=NAME, messages=USER),
        {"authorization": "Bearer wrong"},
    ),
    "404 model": ("POST", CHAT, _json(model="other", messages=USER), {}),
    "404 model of a stream": ("POST", CHAT, _json(model="other", messages=USER, stream=True), {}),
    "404 path": ("GET", "/v1/nowhere", None, {}),
    "404 embeddings": ("POST", "/v1/embeddings", _json(model=NAME, input="a"), {}),
    "405": ("GET", CHAT, None, {}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, engine: Vllm, proxy: Jouleproxy, http: httpx.Client) -> None:
    method, path, body, headers = ERRORS[case]
    direct, proxied = (
        http.request(
            method,
            f"{base}{path}",
            content=body,
            headers={"content-type": "application/json", **headers},
        )
        for base in (engine.url, proxy.url)
    )
    assert direct.status_code >= 400
    assert proxied.status_code == direct.status_code
    assert proxied.content == direct.content
    for name in ("content-type", "allow"):
        assert proxied.headers.get(name) == direct.headers.get(name)


@pytest.mark.parametrize("stream", [False, True])
def test_answers(stream: bool, engine: Vllm, proxy: Jouleproxy, http: httpx.Client) -> None:
    """Equal but for the second at which each was made."""
    body = {"model": NAME, "messages": USER, "max_tokens": 16, "seed": 1, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    direct, proxied = (
        http.post(f"{base}{CHAT}", json=body, headers={"x-request-id": f"bytes-{stream}"})
        for base in (engine.url, proxy.url)
    )
    assert direct.status_code == 200
    assert _timeless(proxied.content) == _timeless(direct.content)


def test_paths_that_are_not_metered(engine: Vllm, proxy: Jouleproxy, http: httpx.Client) -> None:
    for path in ("/version", "/health", "/ping"):
        assert http.get(proxy.url + path).content == http.get(engine.url + path).content
    question = {"model": NAME, "prompt": "joule"}
    direct, proxied = (
        http.post(f"{base}/tokenize", json=question).content for base in (engine.url, proxy.url)
    )
    assert proxied == direct


def _timeless(answer: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":0', answer)
