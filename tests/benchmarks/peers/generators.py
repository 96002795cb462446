"""Other load generators, run as their users run them against the truth server: the rows of the peers' table.

vLLM's comes with ``make test-engines``; AIPerf is installed here, into build/peers, when the benchmark runs.
"""

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from packaging.requirements import Requirement

from loadgen.selfcheck.checks import truth_server
from loadgen.selfcheck.truth_server import MODEL, Truth
from tests.engines import install as engines

# The role comes with the first token, as from vLLM itself: these clients take it for one.
STREAM: Final = Truth(ttft_s=0.05, itl_s=0.01, tokens=64, role_first=False)
_HERE: Final = Path(__file__).resolve().parent
_AIPERF: Final = _HERE.parents[2] / "build" / "peers" / "aiperf"
_AIPERF_VERSION: Final = "aiperf==0.13.0"
_SECONDS: Final = 3
_REVISION: Final = "0" * 40


class PeerError(Exception):
    """``str`` is the reason why there is no figure."""


@dataclass(slots=True)
class Peer:
    """Measurements of one generator; ``ttft_ms`` by rate: TTFT minus nominal, p50 and p99."""

    name: str
    megabytes: float
    ttft_ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    reached: dict[int, float] = field(default_factory=dict)
    requests: float | None = None
    chunks: float | None = None
    why_not: str = ""


def core_megabytes() -> float:
    """Return the size of ``pip install jouleproxy``, without pip: this project and its dependencies."""
    names, waiting = set[str](), [Requirement("jouleproxy")]
    while waiting:
        name = waiting.pop().name.lower()
        if name not in names:
            names.add(name)
            needed = [Requirement(text) for text in distribution(name).requires or []]
            waiting += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    files = [Path(str(file.locate())) for name in names for file in distribution(name).files or []]
    own = sum(_megabytes(_HERE.parents[2] / package) for package in ("proxy", "loadgen"))
    return own + sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def vllm(rates: Sequence[int], limit_s: float) -> Peer:
    """``vllm bench serve``: all its runs in one process, for its imports take longest."""
    if not engines.PYTHON.exists():
        raise PeerError("vLLM is not installed: make test-engines installs it")
    one, many = Truth(0.0, 0.0, 1), Truth(0.0, 0.0, 256)
    with truth_server(STREAM) as stream, truth_server(one) as ones, truth_server(many) as manies:
        jobs = [_vllm_options(stream, 64, rate * _SECONDS, ["--request-rate", str(rate)]) for rate in rates]
        at_once = ["--max-concurrency", "64"]
        jobs += [_vllm_options(ones, 1, 2000, at_once), _vllm_options(manies, 256, 400, at_once)]
        script = [str(engines.PYTHON), str(_HERE / "vllm_bench.py")]
        *runs, requests, chunks = json.loads(_run(script, limit_s, given=json.dumps(jobs)))
    return Peer(
        "vllm bench serve",
        _megabytes(engines.VENV),
        ttft_ms={rate: _ends_ms(run["ttfts"]) for rate, run in zip(rates, runs, strict=True)},
        reached={r: run["requests"] / run["seconds"] for r, run in zip(rates, runs, strict=True)},
        requests=requests["requests"] / requests["seconds"],
        chunks=256 * chunks["requests"] / chunks["seconds"],
    )


def _vllm_options(url: str, tokens: int, count: int, load: list[str]) -> list[str]:
    return [
        "--backend", "openai-chat", "--base-url", url, "--endpoint", "/v1/chat/completions",
        "--model", MODEL, "--tokenizer", str(engines.MODEL), "--dataset-name", "random",
        "--random-input-len", "8", "--random-output-len", str(tokens), "--num-prompts", str(count),
        "--ignore-eos", "--disable-tqdm", "--save-detailed", "--ready-check-timeout-sec", "0", *load,
    ]  # fmt: skip


def install_aiperf(limit_s: float) -> None:
    """Into an environment of its own; raises :class:`PeerError`."""
    if (_AIPERF / "bin" / "aiperf").exists():
        return
    venv.create(_AIPERF, with_pip=True)
    try:
        _run([str(_AIPERF / "bin/python"), "-m", "pip", "install", "-q", _AIPERF_VERSION], limit_s)
    except PeerError:
        shutil.rmtree(_AIPERF, ignore_errors=True)
        raise


def aiperf(rates: Sequence[int], limit_s: float) -> Peer:
    """Run ``aiperf profile`` once per rate; rates for which there was no time are reported."""
    install_aiperf(limit_s)
    if not engines.MODEL.exists():
        raise PeerError("AIPerf needs a tokenizer: make test-engines makes one")
    peer = Peer("AIPerf 0.13", _megabytes(_AIPERF))
    with TemporaryDirectory() as folder, truth_server(STREAM) as url:
        _as_cached(engines.MODEL, Path(folder) / "hub")
        for rate in rates:
            try:
                peer.ttft_ms[rate], peer.reached[rate] = _aiperf(
                    url, rate, Path(folder), limit_s / len(rates)
                )
            except PeerError as error:
                peer.why_not = str(error)
    return peer


def _aiperf(url: str, rate: int, folder: Path, limit_s: float) -> tuple[tuple[float, float], float]:
    out = folder / str(rate)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}
    command = [
        str(_AIPERF / "bin/aiperf"), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat",
        "--streaming", "--tokenizer", "truth/tiny", "--synthetic-input-tokens-mean", "8",
        "--output-tokens-mean", "64", "--request-rate", str(rate), "--request-count", str(rate * _SECONDS),
        "--arrival-pattern", "poisson", "--random-seed", "1", "--artifact-dir", str(out), "--ui", "none",
    ]  # fmt: skip
    _run(command, limit_s, environment=environment)
    lines = (out / "profile_export.jsonl").read_text().splitlines()
    ttfts = [json.loads(line)["metrics"]["time_to_first_token"]["value"] / 1e3 for line in lines]
    whole = json.loads((out / "profile_export_aiperf.json").read_text())
    return _ends_ms(ttfts), whole["request_throughput"]["avg"]


def _as_cached(model: Path, hub: Path) -> None:
    """AIPerf takes tokenizers by name from the hub's cache alone."""
    home = hub / "models--truth--tiny"
    shutil.copytree(model, home / "snapshots" / _REVISION)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(_REVISION)


def _run(
    command: list[str], limit_s: float, *, given: str = "", environment: dict[str, str] | None = None
) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=limit_s, env=environment, check=True
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{Path(command[0]).name} was not ready within {limit_s:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["nothing"]
        raise PeerError(f"{Path(command[0]).name} failed: {said[-1][:200]}") from None
    return done.stdout


def _ends_ms(ttfts_s: list[float]) -> tuple[float, float]:
    errors = sorted((ttft - STREAM.ttft_s) * 1e3 for ttft in ttfts_s)
    return median(errors), errors[int(0.99 * len(errors))]


def _megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
