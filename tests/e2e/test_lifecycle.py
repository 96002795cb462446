"""Behaviour of a running proxy when its meter fails, and when it is stopped."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import httpx
import msgspec
import pytest

from proxy.clock import now_ns
from proxy.schema import Gap, RequestEnergy, decode_request
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from proxy.units import seconds_from_ns
from tests.e2e.serving import Serving, serving, until_measured
from tests.fakes.model_server import MODEL, ModelServer
from tests.fakes.otlp import attributes, receiver
from tests.timing import PATIENCE_SECONDS

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")


def records(path: Path) -> dict[str, RequestEnergy]:
    found = [decode_request(line) for line in path.read_bytes().splitlines()]
    return {record.request_id: record for record in found}


async def stream(proxy: Serving, name: str, begun: asyncio.Event | None = None) -> int:
    """Send a streamed request to its end; return the number of its chunks. The first one sets ``begun``."""
    body = {"model": MODEL, "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        url = f"{proxy.url}/v1/chat/completions"
        async with client.stream("POST", url, json=body, headers={"x-request-id": name}) as answer:
            assert answer.status_code == 200
            chunks = 0
            async for line in answer.aiter_lines():
                chunks += line.startswith("data: {")
                if chunks and begun is not None:
                    begun.set()
            return chunks


async def until_ready(proxy: Serving, wanted: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"{proxy.admin}/readyz")).status_code == wanted:
                    return
            except httpx.TransportError:  # 0: nobody listens there
                if not wanted:
                    return
            await asyncio.sleep(0.02)


async def until_running(server: ModelServer, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while server.running < count:  # noqa: ASYNC110 - what is awaited is in another process
            await asyncio.sleep(0.01)


def meter_of(proxy: Serving) -> int:
    """Return the supervisor's first child: the meter."""
    children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
    return int(children[0])


async def first_gap(proxy: Serving) -> Gap:
    """Return the first gap of the first device's account."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{proxy.admin}/energy/devices")
    return msgspec.convert(answer.json()["devices"][0]["gaps"][0], Gap)


async def test_a_meter_that_dies_is_started_again_and_the_gap_is_in_the_records(tmp_path: Path) -> None:
    library, state = build(tmp_path / "lib"), tmp_path / "state"
    ledger = tmp_path / "ledger.jsonl"
    with FakeNvml(state, [SimulatedDevice(idle_watts=100.0)], now_ns()):
        async with ModelServer(tokens=20) as server:
            words = ("--source", "nvml", "--policy", "overlap", "--ledger", str(ledger))
            with serving(server.url, *words, variables=environment(library, state)) as proxy:
                await until_measured(proxy)
                server.may_end.clear()
                begun, began_ns = asyncio.Event(), now_ns()
                during = asyncio.ensure_future(stream(proxy, "during", begun))
                await begun.wait()
                meter = meter_of(proxy)
                proxy.process.send_signal(signal.SIGSTOP)  # so that no new meter is there too soon
                os.kill(meter, signal.SIGKILL)
                killed_ns = now_ns()
                await until_ready(proxy, 0)
                meanwhile = asyncio.ensure_future(stream(proxy, "meanwhile"))
                await until_running(server, 2)
                proxy.process.send_signal(signal.SIGCONT)
                await until_ready(proxy, 200)
                await until_measured(proxy)
                server.may_end.set()
                afterwards = asyncio.ensure_future(stream(proxy, "afterwards"))
                chunks = await asyncio.gather(during, meanwhile, afterwards)
                assert set(chunks) == {21}, "serving went on"
                gap = await first_gap(proxy)
                assert gap.reason == "meter_restarted"
                assert gap.start_ns <= killed_ns < gap.end_ns
    found = records(ledger)
    assert found.keys() == {"during", "meanwhile", "afterwards"}
    # It depends on the start of the new meter: on a busy machine the response ends before its first reading.
    assert found["during"].unknown in {"before_first_sample", "no_samples"}, "the relay told it"
    assert found["during"].joules_high is None
    assert (found["during"].model, found["during"].backend) == (MODEL, server.url.removeprefix("http://"))
    until_killed = seconds_from_ns(killed_ns - began_ns)
    assert 0.0 <= (found["during"].ttft_s or 0.0) <= until_killed < (found["during"].duration_s or 0.0)
    assert found["meanwhile"].unknown in {"before_first_sample", "no_samples"}
    assert found["meanwhile"].joules_high is None
    assert found["afterwards"].unknown is None
    assert found["afterwards"].joules is not None
    assert all(record.final and record.output_tokens == 20 for record in found.values())


async def test_at_sigterm_responses_end_and_their_records_and_spans_are_written(tmp_path: Path) -> None:
    library, state = build(tmp_path / "lib"), tmp_path / "state"
    ledger = tmp_path / "ledger.jsonl"
    with FakeNvml(state, [SimulatedDevice(idle_watts=100.0)], now_ns()), receiver() as spans:
        async with ModelServer(tokens=20) as server:
            words = ("--source", "nvml", "--ledger", str(ledger), "--otlp", spans.url)
            with serving(server.url, *words, variables=environment(library, state)) as proxy:
                await until_measured(proxy)
                server.may_end.clear()
                running = [asyncio.ensure_future(stream(proxy, f"r{n}")) for n in range(3)]
                await until_running(server, 3)
                proxy.process.send_signal(signal.SIGTERM)
                await until_ready(proxy, 503)
                assert not any(task.done() for task in running), "it is not ready, and they go on"
                server.may_end.set()
                assert await asyncio.gather(*running) == [21] * 3
                assert await asyncio.to_thread(proxy.process.wait, PATIENCE_SECONDS) == 0
        calls = [span for span in spans.spans if "gen_ai.request.model" in attributes(span)]
    found = records(ledger)
    assert found.keys() == {"r0", "r1", "r2"}
    assert all(record.final and record.status == 200 for record in found.values())
    assert len(calls) == 3
    told = {span.trace_id.hex(): attributes(span).get("energy.joules") for span in calls}
    assert told == {record.trace_id: record.joules for record in found.values()}
    assert {"hw.energy", "gen_ai.client.token.usage"} <= spans.metrics.keys()
