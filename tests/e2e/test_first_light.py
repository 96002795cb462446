"""One device of known power, three overlapping requests: all outputs show the same energy.

The production NVML code reads the C stand-in through the real nvidia-ml-py; HTTP, OTLP and scrape are real.
"""

import asyncio
import importlib.util
import shutil
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.clock import now_ns
from proxy.schema import RequestEnergy, decode_request
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from tests.e2e.serving import Serving, serving
from tests.fakes.model_server import MODEL, ModelServer
from tests.fakes.otlp import Receiver, attributes, receiver
from tests.timing import PATIENCE_SECONDS

WATTS = 300.0
IDS = ("first", "second", "third")

pytestmark = [
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("proxy.relay.worker", "proxy.meter.process")),
        reason="proxy.relay.worker and proxy.meter.process are not both there",
    ),
    pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler"),
]


async def ask(proxy: Serving, request_id: str, delay_seconds: float) -> dict[str, object]:
    await asyncio.sleep(delay_seconds)
    headers = {"x-request-id": request_id, "x-energy": "wait"}
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        body = {"model": MODEL, "messages": []}
        answer = await client.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.headers["x-request-id"] == request_id
    energy: dict[str, object] = answer.raise_for_status().json()["energy"]
    return energy


async def final_record(proxy: Serving, request_id: str) -> RequestEnergy:
    async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        while True:
            answer = await client.get(f"{proxy.admin}/energy/requests/{request_id}")
            if answer.status_code == 200 and (record := decode_request(answer.content)).final:
                return record
            await asyncio.sleep(0.05)


async def span_joules(server: Receiver, record: RequestEnergy) -> object:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for span in server.spans:
                found = attributes(span)
                if (
                    span.trace_id.hex() == record.trace_id
                    and "energy.joules" in found
                    and "gen_ai.request.model" in found
                ):
                    return found["energy.joules"]
            await asyncio.sleep(0.05)


def scraped_joules(text: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "jouleproxy_request_joules_total"
    )


async def test_all_outputs_show_the_same_energy_and_it_adds_up(tmp_path: Path) -> None:
    library, state = build(tmp_path / "lib"), tmp_path / "state"
    device = SimulatedDevice(idle_watts=WATTS)
    with FakeNvml(state, [device], now_ns()), receiver() as spans:
        async with ModelServer() as server:
            words = ("--source", "nvml", "--policy", "overlap", "--otlp", spans.url)
            with serving(server.url, *words, variables=environment(library, state)) as proxy:
                answers = await asyncio.gather(*(ask(proxy, name, 0.15 * i) for i, name in enumerate(IDS)))
                records = [await final_record(proxy, name) for name in IDS]
                joules = [record.joules for record in records]
                assert [answer["joules"] for answer in answers] == joules
                assert [await span_joules(spans, record) for record in records] == joules
                async with httpx.AsyncClient() as client:
                    scrape = (await client.get(f"{proxy.admin}/metrics")).text
                    (account,) = (await client.get(f"{proxy.admin}/energy/devices")).json()["devices"]
    total = sum(value for value in joules if value is not None)
    assert None not in joules
    assert scraped_joules(scrape) == pytest.approx(total, rel=1e-9)
    assert account["requests_joules"] == pytest.approx(total, rel=1e-9)
    parts = total + account["idle_joules"] + account["unattributed_joules"]
    assert parts == pytest.approx(account["measured_joules"], rel=1e-9)
    seconds = (account["end_ns"] - account["start_ns"]) / 1e9
    assert account["measured_joules"] == pytest.approx(WATTS * seconds, rel=0.05)
    assert all(record.policy == "overlap" and record.unknown is None for record in records)
