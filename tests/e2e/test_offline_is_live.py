"""``--record`` and ``jouleproxy attribute``: the same core over the same events gives the same joules."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec

from proxy.schema import RequestEnergy
from proxy.simulator.gpu.fake_nvml import build, environment
from tests.e2e.serving import COMMAND, free_port, serving, wait_until_ready
from tests.timing import PATIENCE_SECONDS

REQUESTS = 40


async def ask(client: httpx.AsyncClient, number: int) -> None:
    """One of ``REQUESTS``, a third of them not streamed, each beginning 0.1 s after the last."""
    await asyncio.sleep(0.1 * number)
    body = {
        "model": "llama-3.1-8b",
        "messages": [{"role": "user", "content": "word " * (20 + 40 * (number % 5))}],
        "max_tokens": 20 + 15 * (number % 4),
        "stream": number % 3 > 0,
    }
    headers = {"x-request-id": f"r{number}"}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def live(tmp_path: Path) -> dict[str, RequestEnergy]:
    """Return the records of a served run, which is recorded in ``run.jsonl``."""
    library, state, port = build(tmp_path / "lib"), tmp_path / "state", free_port()
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(state), "--port", str(port)]
    engine = subprocess.Popen(command, env=dict(os.environ))
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/health", engine)
        record, ledger = str(tmp_path / "run.jsonl"), str(tmp_path / "ledger.jsonl")
        words = ("--source", "nvml", "--record", record, "--ledger", ledger)
        variables = environment(library, state)
        with serving(f"http://127.0.0.1:{port}", *words, variables=variables) as proxy:

            async def traffic() -> None:
                # One client: making forty at once takes a busy machine longer than a head may take to come.
                async with httpx.AsyncClient(base_url=proxy.url, timeout=PATIENCE_SECONDS) as client:
                    await asyncio.gather(*(ask(client, number) for number in range(REQUESTS)))

            asyncio.run(traffic())
    finally:
        engine.terminate()
        engine.wait()
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines()
    return {r.request_id: r for r in map(msgspec.json.Decoder(RequestEnergy).decode, lines)}


def test_the_recorded_timeline_gives_the_same_joules_bit_for_bit(tmp_path: Path) -> None:
    records = live(tmp_path)
    assert len(records) == REQUESTS
    command = [str(COMMAND), "attribute", str(tmp_path / "run.jsonl")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    rows = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    offline = {row["request"]: row for row in rows if row["type"] == "request"}
    assert offline.keys() == records.keys()
    for name, record in records.items():
        assert record.joules is not None
        assert offline[name]["joules"] == record.joules
        assert offline[name]["joules_low"] == record.joules_low
        assert offline[name]["joules_high"] == record.joules_high
        assert offline[name]["devices"] == record.devices
