"""The examples run as a user starts them, against the simulated demo engine behind a proxy."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.serving import Serving, free_port, serving
from tests.timing import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PROFILE = "h100-llama-3.1-8b"


@dataclass(frozen=True, slots=True)
class World:
    """A proxy in front of a simulated engine, and the ledger that it writes."""

    proxy: Serving
    ledger: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start engine and proxy once; every example uses them."""
    folder = tmp_path_factory.mktemp("examples")
    state, ledger, port = folder / "gpu", folder / "ledger.jsonl", free_port()
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(state), "--profile", PROFILE]
    engine = subprocess.Popen([*command, "--port", str(port)])
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models")
        words = ("--source", f"simulated:{state}", "--ledger", str(ledger), "--settle-seconds", "1")
        with serving(f"http://127.0.0.1:{port}", *words) as proxy:
            wait_for(f"{proxy.admin}/energy/devices", holding='"watts":')
            for _ in range(2):
                send_request(proxy)
            yield World(proxy, ledger)
    finally:
        engine.terminate()
        engine.wait(PATIENCE_SECONDS)


def send_request(proxy: Serving) -> None:
    """Send a request whose record the ledger and the metrics then contain."""
    model = httpx.get(f"{proxy.url}/v1/models").raise_for_status().json()["data"][0]["id"]
    body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
    httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS).raise_for_status()


def wait_for(url: str, holding: str = "") -> None:
    """Wait until a URL returns a page that contains a text."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if holding in httpx.get(url).raise_for_status().text:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise TimeoutError(url)


def run(*command: str) -> str:
    """Return the standard output of a program, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """Return the numbers that a pattern with one group finds; there must be some."""
    found = [float(number) for number in re.findall(pattern, text)]
    assert found, text
    return found


def test_the_openai_example_prints_the_energy_of_a_response_and_of_a_stream(world: World) -> None:
    printed = run(sys.executable, str(EXAMPLES / "openai_client.py"), world.proxy.url)
    assert all(joules > 0 for joules in numbers(r"^(?:response|stream): ([\d.]+) J", printed))
    assert "for 16 tokens" in printed


def test_the_langchain_example_prints_the_energy_of_a_call(world: World) -> None:
    pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    printed = run(sys.executable, str(EXAMPLES / "langchain_client.py"), world.proxy.url)
    (joules,) = numbers(r": ([\d.]+) J", printed)
    assert joules > 0


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_example_prints_responses_record_and_summary_with_energy(world: World) -> None:
    printed = run("bash", str(EXAMPLES / "curl.sh"), world.proxy.url, world.proxy.admin)
    # The stream's energy is provisional: null where nothing was measured of it yet.
    assert len(re.findall(r'"joules": ?(?:[\d.]+|null)', printed)) >= 4, printed
    assert len(numbers(r'"joules": ?([\d.]+)', printed)) >= 3, printed
    record = next(line for line in printed.splitlines() if line.startswith('{"request_id"'))
    assert json.loads(record)["output_tokens"] == 16


def test_the_ledger_example_prints_the_energy_of_the_model_of_every_record(world: World) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not world.ledger.exists() or world.ledger.read_text().count("\n") < 2:
        assert time.monotonic() < deadline, "no final records"
        time.sleep(0.05)
    printed = run(sys.executable, str(EXAMPLES / "ledger.py"), str(world.ledger))
    assert numbers(r": ([\d.]+) J, \d+ output tokens", printed)[0] > 0
    assert "static" in printed or "unseparated" in printed


def test_every_query_of_the_grafana_example_uses_metrics_and_labels_that_exist(world: World) -> None:
    wait_for(f"{world.proxy.admin}/metrics", holding="jouleproxy_request_joules_total{")
    text = httpx.get(f"{world.proxy.admin}/metrics").raise_for_status().text
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    queries = re.findall(r"```promql\n(.*?)```", (EXAMPLES / "grafana.md").read_text(), re.DOTALL)
    assert len(queries) > 4
    for query in queries:
        names = re.findall(r"jouleproxy_\w+", query)
        used = {label for group in re.findall(r"by \(([\w, ]+)\)", query) for label in group.split(", ")}
        used |= set(re.findall(r"\{(\w+)!?=", query))
        assert names, query
        assert all(name in labels for name in names), query
        assert used <= set.union(*(labels[name] for name in names)), query
