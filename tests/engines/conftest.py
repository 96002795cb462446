"""One real vLLM for the session, the proxy in front of it, and a device of known power.

``TEST_VLLM_URL=URL`` uses a vLLM that runs already (same model, same key): for developing.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.engines import install, proxied, vllm
from tests.engines.device import Device, constant_power
from tests.engines.proxied import Jouleproxy
from tests.engines.serving import Command, free_port, running
from tests.engines.vllm import API_KEY, Vllm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as needing the engine."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engines)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """Return a vLLM that responds."""
    if url := os.environ.get("TEST_VLLM_URL"):
        yield Vllm(url)
        return
    if reason := install.missing():
        pytest.skip(reason)
    with vllm.serve(tmp_path_factory.mktemp("vllm") / "vllm.log") as server:
        yield server


@pytest.fixture(scope="session")
def image_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a diffusers server that responds."""
    if reason := install.missing():
        pytest.skip(reason)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = Command(
        argv=(str(install.PYTHON), str(Path(__file__).with_name("image_server.py")), str(port)),
        log=tmp_path_factory.mktemp("images") / "images.log",
        ready=f"{url}/health",
        within_seconds=90.0,
        env={"HF_HUB_OFFLINE": "1"},
    )
    with running(command):
        yield url


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Return a device of constant power, simulated below the production NVML code."""
    with constant_power(tmp_path_factory.mktemp("device")) as made:
        yield made


@pytest.fixture(scope="session")
def proxy(engine: Vllm, device: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jouleproxy]:
    """``jouleproxy serve`` in front of vLLM."""
    with proxied.serve(engine.url, tmp_path_factory.mktemp("jouleproxy"), device) as made:
        yield made


@pytest.fixture(params=["direct", "proxied"])
def url(request: pytest.FixtureRequest) -> str:
    """Run the same test against the engine itself and through the proxy."""
    if request.param == "direct":
        server: Vllm = request.getfixturevalue("engine")
        return server.url
    between: Jouleproxy = request.getfixturevalue("proxy")
    return between.url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    """openai-python, unchanged but for where it points."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=API_KEY, timeout=60.0, max_retries=0) as made:
        yield made


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """Return a plain HTTP client with the key."""
    with httpx.Client(headers={"authorization": f"Bearer {API_KEY}"}, timeout=60.0) as made:
        yield made
