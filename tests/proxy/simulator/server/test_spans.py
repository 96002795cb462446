import json
from dataclasses import replace

import httpx

from proxy.simulator.engine.job import Job
from proxy.simulator.profiles.profile import DEFAULT, Costs, load
from proxy.simulator.server.metrics import Metrics
from proxy.simulator.server.spans import EngineSpans, Traced
from proxy.simulator.server.text_requests import TextRequest
from proxy.simulator.server.text_server import Server
from tests.fakes.otlp import attributes, receiver
from tests.proxy.simulator.captures import FOLDER, capture

FAST = replace(load(DEFAULT), seconds=Costs(2e-3, 0.0, 0.0, 0.0), cap_watts=None)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = TextRequest(True, (), 1, 8, "length", False, False, False)


async def test_a_request_has_a_span_under_its_clients() -> None:
    with receiver() as collector:
        server = Server(FAST, lambda _t, _w: None)
        server.trace(collector.url)
        await server.start()
        body = {"messages": [{"content": "a b c"}], "max_tokens": 20, "temperature": 0.5}
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        headers = {"X-Request-Id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}
        async with httpx.AsyncClient() as client:
            await client.post(url, json=body, headers=headers)
            await client.post(url, json=body, headers=headers | {"traceparent": f"00-{TRACE}-{PARENT}-00"})
            await client.post(url, json=body)
        await server.close()
    first, other = collector.spans
    assert (first.name, first.trace_id.hex(), first.parent_span_id.hex()) == ("llm_request", TRACE, PARENT)
    assert other.trace_id.hex() != TRACE
    found = attributes(first)
    assert (found["gen_ai.request.id"], found["gen_ai.request.temperature"]) == ("chatcmpl-mine", 0.5)
    assert (found["gen_ai.usage.prompt_tokens"], found["gen_ai.usage.completion_tokens"]) == (3, 20)
    seconds = (first.end_time_unix_nano - first.start_time_unix_nano) / 1e9
    latency = {name.rpartition(".")[2]: value for name, value in found.items() if "latency" in name}
    assert isinstance(latency["e2e"], float)
    assert abs(latency["e2e"] - seconds) < 1e-6
    assert isinstance(latency["time_to_first_token"], float)
    assert latency["e2e"] > 0.04
    assert latency["time_to_first_token"] < latency["e2e"] / 2


def test_those_whose_client_has_gone_have_none() -> None:
    with receiver() as collector:
        spans = EngineSpans(collector.url)
        told, job = Traced(Metrics("m"), spans), Job("a", 1, 1)
        spans.begin(job, "x", ASKED, None)
        spans.forget(job)
        told.scheduled(job, 0.1)
        told.first(job, 0.2, 0.1)
        told.ended(job, 0.3, 0.1)
        told.aborted()
        spans.close()
    assert collector.spans == []


def test_attributes_are_those_of_vllm() -> None:
    capture("vllm_raw/health.txt")  # skips without captures
    parts = json.loads((FOLDER / "vllm_otlp_llm_request_span.json").read_text())
    theirs = next(part for part in parts if part.get("name") == "llm_request")
    with receiver() as collector:
        spans = EngineSpans(collector.url)
        told, job = Traced(Metrics("m"), spans), Job("a", 1, 1)
        spans.begin(job, "x", ASKED, None)
        told.scheduled(job, 0.1)
        told.first(job, 0.2, 0.1)
        told.ended(job, 0.3, 0.1)
        spans.close()
    (ours,) = collector.spans
    kinds = {pair.key: pair.value.WhichOneof("value") for pair in ours.attributes}
    expected = {each["key"]: next(iter(each["value"])) for each in theirs["attributes"]}
    assert {key: (kind or "").replace("_v", "V") for key, kind in kinds.items()} == expected
    assert theirs["kind"] == f"SPAN_KIND_{'SERVER' if ours.kind == 2 else ours.kind}"
