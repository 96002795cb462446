"""Joules of real answers: in the record, in the answer, in the device's account."""

import json
import math
import uuid
from typing import Any

import httpx
import pytest

from proxy.clock import now_ns
from proxy.schema import RequestEnergy
from proxy.units import seconds_from_ns
from tests.engines.proxied import Jouleproxy
from tests.engines.vllm import NAME

CHAT = "/v1/chat/completions"
PROMPT = "Where do the joules go?"
PROMPT_TOKENS = len(PROMPT) + 3  # the template's three, one token a character
OUTPUT_TOKENS = 120


def _body(**fields: object) -> dict[str, object]:
    fixed = {"model": NAME, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "seed": 1}
    return {**fixed, "messages": [{"role": "user", "content": PROMPT}], **fields}


def _ask(proxy: Jouleproxy, http: httpx.Client, headers: dict[str, str], **fields: object) -> httpx.Response:
    return http.post(f"{proxy.url}{CHAT}", json=_body(**fields), headers=headers)


@pytest.mark.parametrize("stream", [False, True])
def test_record(stream: bool, proxy: Jouleproxy, http: httpx.Client) -> None:
    answer = _ask(proxy, http, {}, stream=stream)
    record = proxy.final_record(answer.headers["x-request-id"])
    assert (record.route, record.model, record.status) == ("chat", NAME, 200)
    assert record.stream is stream
    assert not record.cancelled
    assert (record.prompt_tokens, record.output_tokens) == (PROMPT_TOKENS, OUTPUT_TOKENS)
    _joules_are_whole(record, proxy)


def test_first_token_is_not_the_first_byte(proxy: Jouleproxy, http: httpx.Client) -> None:
    """vLLM sends its head before it has computed anything: 5 ms and 330 ms, measured."""
    prompt = uuid.uuid4().hex + "j" * 1900  # nothing of it is in the prefix cache
    messages = [{"role": "user", "content": prompt}]
    start = now_ns()
    with http.stream(
        "POST", f"{proxy.url}{CHAT}", json=_body(stream=True, max_tokens=2, messages=messages)
    ) as answer:
        head = now_ns()
        stamps = [now_ns() for line in answer.iter_lines() if '"content"' in line and '"role"' not in line]
        first = stamps[0]
    record = proxy.final_record(answer.headers["x-request-id"])
    assert head - start < 0.5 * (first - start)
    assert record.ttft_s == pytest.approx(seconds_from_ns(first - start), rel=0.2)
    assert record.prompt_tokens == len(prompt) + 3


def test_energy_in_a_json_answer(proxy: Jouleproxy, http: httpx.Client) -> None:
    answer = _ask(proxy, http, {"x-energy": "on"})
    energy = answer.json()["energy"]
    assert "joules" in energy
    assert "final" in energy
    assert answer.json()["usage"]["completion_tokens"] == OUTPUT_TOKENS


def test_awaited_energy_is_the_records(proxy: Jouleproxy, http: httpx.Client) -> None:
    answer = _ask(proxy, http, {"x-energy": "wait"})
    energy = answer.json()["energy"]
    record = proxy.final_record(answer.headers["x-request-id"])
    assert proxy.device.watts > 0
    assert energy["final"] is True
    assert energy["joules"] == record.joules


def test_energy_in_the_usage_of_a_stream(proxy: Jouleproxy, http: httpx.Client) -> None:
    options = {"include_usage": True}
    answer = _ask(proxy, http, {"x-energy": "on"}, stream=True, stream_options=options)
    usages = [usage for chunk in _chunks(answer) if (usage := chunk.get("usage"))]
    assert len(usages) == 1
    assert usages[0]["completion_tokens"] == OUTPUT_TOKENS
    assert "joules" in usages[0]["energy"]


def test_energy_is_a_comment_if_no_usage_was_requested(proxy: Jouleproxy, http: httpx.Client) -> None:
    answer = _ask(proxy, http, {"x-energy": "on"}, stream=True)
    comments = [line for line in answer.text.splitlines() if line.startswith(": energy ")]
    assert len(comments) == 1
    assert "joules" in json.loads(comments[0].removeprefix(": energy "))
    assert all(chunk["choices"] for chunk in _chunks(answer))


def test_a_response_has_no_energy_if_none_was_requested(proxy: Jouleproxy, http: httpx.Client) -> None:
    assert "energy" not in _ask(proxy, http, {}).json()
    assert "energy" not in _ask(proxy, http, {}, stream=True).text


def test_conservation(proxy: Jouleproxy, http: httpx.Client) -> None:
    assert proxy.device.watts > 0
    answer = _ask(proxy, http, {})
    proxy.final_record(answer.headers["x-request-id"])
    devices = proxy.get("/energy/devices").json()["devices"]
    assert devices
    for device in devices:
        parts = ("requests_joules", "idle_joules", "unattributed_joules")
        total = math.fsum(device[part] for part in parts)
        assert total == pytest.approx(device["measured_joules"], rel=1e-9)
        assert device["requests_joules"] > 0


def test_metrics_name_the_model(proxy: Jouleproxy, http: httpx.Client) -> None:
    answer = _ask(proxy, http, {})
    proxy.final_record(answer.headers["x-request-id"])
    metrics = proxy.get("/metrics").text
    assert f'model="{NAME}"' in metrics
    assert "jouleproxy_request_joules_total{" in metrics


def _joules_are_whole(record: RequestEnergy, proxy: Jouleproxy) -> None:
    """Known, of the stand-in, and what a device of constant power can have spent meanwhile."""
    assert record.unknown is None
    assert record.joules is not None
    assert record.duration_s is not None
    assert record.source == proxy.device.source
    assert record.joules == pytest.approx(proxy.device.watts * record.duration_s, rel=0.25)
    assert sum(record.devices.values()) == pytest.approx(record.joules, rel=1e-9)


def _chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
