"""A client that leaves stops the engine's work: direct, and through the proxy just so."""

import httpx
import pytest

from tests.engines.proxied import Jouleproxy
from tests.engines.serving import until
from tests.engines.vllm import NAME, Vllm

ENDLESS = {
    "model": NAME,
    "messages": [{"role": "user", "content": "count"}],
    "max_tokens": 2000,
    "ignore_eos": True,
}
IDLE_WITHIN_SECONDS = 2.0  # vLLM alone: 0.1 s; 2,000 tokens would take 8 s


def _leave_mid_stream(url: str, http: httpx.Client, request_id: str) -> None:
    with http.stream(
        "POST",
        f"{url}/v1/chat/completions",
        json={**ENDLESS, "stream": True},
        headers={"x-request-id": request_id},
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(10):
            next(lines)


def _idle(engine: Vllm) -> bool:
    return engine.running() == 0


def test_stream(url: str, engine: Vllm, http: httpx.Client) -> None:
    generated = engine.metric("vllm:generation_tokens_total")
    _leave_mid_stream(url, http, "left-mid-stream")
    until(lambda: _idle(engine), seconds=IDLE_WITHIN_SECONDS)
    spent = engine.metric("vllm:generation_tokens_total") - generated
    assert 0 < spent < ENDLESS["max_tokens"] // 2  # type: ignore[operator]


def test_a_client_that_disconnects_before_a_non_streamed_response_frees_the_engine(
    url: str, engine: Vllm, http: httpx.Client
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post(f"{url}/v1/chat/completions", json=ENDLESS, timeout=0.5)
    until(lambda: _idle(engine), seconds=IDLE_WITHIN_SECONDS)


def test_the_record_of_a_cancelled_request_has_status_cancelled(
    proxy: Jouleproxy, http: httpx.Client
) -> None:
    _leave_mid_stream(proxy.url, http, "left-with-a-record")
    record = proxy.final_record("left-with-a-record")
    assert record.cancelled
    assert record.duration_s is not None
    assert record.joules == pytest.approx(proxy.device.watts * record.duration_s, rel=0.5)
