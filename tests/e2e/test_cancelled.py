"""A client that leaves mid-stream: its record is closed as cancelled, with the joules spent until then."""

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest

from proxy.clock import now_ns
from proxy.simulator.gpu.fake_nvml import FakeNvml, SimulatedDevice, build, environment
from proxy.units import seconds_from_ns
from tests.e2e.serving import Serving, serving
from tests.e2e.test_first_light import final_record
from tests.fakes.raw_upstream import RawUpstream
from tests.proxy.relay.test_worker import SSE, TOKEN, chunked
from tests.timing import PATIENCE_SECONDS, Punctuality

WATTS = 300.0
LIVED_SECONDS = 1.0

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a stream that ends only with its reader."""
    writer.write(SSE)
    while True:
        writer.write(chunked(TOKEN, end=False)[0])
        await writer.drain()
        await asyncio.sleep(0.02)


async def leave_after(proxy: Serving, request_id: str, seconds: float) -> float:
    """Request a stream and disconnect; return its duration."""
    start = now_ns()
    body = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    url = f"{proxy.url}/v1/chat/completions"
    async with httpx.AsyncClient() as client:
        async with client.stream("POST", url, json=body, headers={"x-request-id": request_id}) as answer:
            assert answer.status_code == 200
            await asyncio.sleep(seconds)
        return seconds_from_ns(now_ns() - start)


async def test_joules_end_where_the_client_left(tmp_path: Path) -> None:
    library, state = build(tmp_path / "lib"), tmp_path / "state"
    with FakeNvml(state, [SimulatedDevice(idle_watts=WATTS)], now_ns()):
        async with RawUpstream(endless) as server:
            words = ("--source", "nvml", "--policy", "overlap")
            with serving(server.url, *words, variables=environment(library, state)) as proxy:
                with Punctuality() as machine:
                    lived = await leave_after(proxy, "left", LIVED_SECONDS)
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await server.gone.wait()
                record = await final_record(proxy, "left")
    assert record.cancelled
    assert record.unknown is None
    assert record.duration_s is not None
    assert record.joules == pytest.approx(WATTS * record.duration_s, rel=0.15)
    assert record.output_tokens is None  # no usage came, and how many were computed is not known
    off = abs(record.duration_s - lived)
    machine.judge(off < 0.5, f"the request ended {off:.1f} s from where its client left")
