"""A real vLLM on the CPU with the tiny model: start it, and read its metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.engines.install import MODEL, VENV
from tests.engines.serving import Command, free_port, running

NAME: Final = "tiny"
API_KEY: Final = "sk-of-the-tests"
MAX_MODEL_LEN: Final = 2048
START_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Vllm:
    """A running server: ``url`` without ``/v1``."""

    url: str

    def metric(self, name: str) -> float:
        """Return the sum over labels of one metric of ``/metrics``; raises ``KeyError``."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self._metrics())
            for sample in family.samples
            if sample.name == name
        ]
        if not found:
            raise KeyError(name)
        return sum(found)

    def running(self) -> float:
        """Return the number of requests that the engine computes now."""
        return self.metric("vllm:num_requests_running")

    def _metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", timeout=10.0).text


@contextmanager
def serve(log: Path) -> Iterator[Vllm]:
    """Start it on a free port of 127.0.0.1 (about 40 s) and stop it after the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [str(VENV / "bin" / "vllm"), "serve", str(MODEL), "--served-model-name", NAME]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--api-key", API_KEY]
    argv += ["--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "16", "--enforce-eager"]
    argv += ["--enable-prompt-tokens-details"]
    command = Command(tuple(argv), log, f"{url}/health", START_SECONDS, _ENVIRONMENT)
    with running(command):
        yield Vllm(url)


_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VIRTUAL_ENV": str(VENV),
}
