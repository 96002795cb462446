"""The complete product against known truth: clients, relay, meter, NVML, attribution, over real sockets.

The simulator computes each request's true energy. On a machine too busy for real time the chunks come
late and in batches, and the error is several times larger: the benchmark reports how late they were.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from proxy.simulator.gpu.fake_nvml import build, environment
from tests.e2e.serving import Serving, free_port, serving, wait_until_ready

pytestmark = pytest.mark.bench

REQUESTS = 300
GAP_SECONDS = 0.1


async def ask(proxy: Serving, number: int) -> None:
    """Log-normal lengths; one in seven is not streamed."""
    await asyncio.sleep(GAP_SECONDS * number)
    rng = np.random.default_rng(number)
    body = {
        "model": "llama-3.1-8b",
        "messages": [{"role": "user", "content": "word " * int(rng.lognormal(5.0, 1.0))}],
        "max_tokens": int(np.clip(rng.lognormal(4.5, 0.7), 5, 600)),
        "stream": bool(number % 7),
    }
    async with httpx.AsyncClient(timeout=60) as client:
        headers = {"x-request-id": f"r{number}"}
        answer = await client.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200


async def drive(proxy: Serving, engine: str) -> tuple[list[dict[str, float]], list[float], float]:
    """Return final records, true joules, and by how many seconds the engine was late."""
    await asyncio.gather(*(ask(proxy, number) for number in range(REQUESTS)))
    await asyncio.sleep(3.0)
    records, truth = [], []
    async with httpx.AsyncClient() as client:
        for number in range(REQUESTS):
            records.append((await client.get(f"{proxy.admin}/energy/requests/r{number}")).json())
            true = (await client.get(f"{engine}/truth/requests/r{number}")).json()
            truth.append(float(true["joules"]))
        late = float((await client.get(f"{engine}/truth")).json()["late_seconds"])
    return records, truth, late


def test_joules_through_everything(tmp_path: Path) -> None:
    library, state, port = build(tmp_path / "lib"), tmp_path / "state", free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(state), "--port", str(port)]
    engine = subprocess.Popen(command)
    try:
        wait_until_ready(f"{url}/health", engine)
        with serving(url, "--source", "nvml", variables=environment(library, state)) as proxy:
            records, true, late = asyncio.run(drive(proxy, url))
    finally:
        engine.terminate()
        engine.wait()
    assert all(record["final"] for record in records)
    joules, truth = np.array([record["joules"] for record in records], float), np.array(true)
    error = np.abs(joules / truth - 1.0)
    inside = np.mean([r["joules_low"] <= t <= r["joules_high"] for r, t in zip(records, true, strict=True)])
    sys.stdout.write(
        f"\n{REQUESTS} requests: error median {np.median(error):.2%}, p95 {np.quantile(error, 0.95):.1%}, "
        f"sum {joules.sum() / truth.sum() - 1.0:+.2%}; in interval {inside:.0%}; engine late {late:.2f} s"
    )
    # The sum is exact on any machine; the division is checked only if the simulator kept real time.
    assert abs(joules.sum() / truth.sum() - 1.0) < 0.05
    assert late > 0.1 or np.median(error) < 0.03
