"""Part e: the engine on the wire: throughput per watt, and sets of requests through the proxy.

Both sweeps load the engine of :mod:`proxy.gpu.server`. The first reads NVML beside it (``loadgen --source
nvml``), the second gets the joules of the proxy: at equal load both must find the same joules per token.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, Final

from proxy.clock import now_ns
from proxy.gpu import wire
from proxy.gpu.served import RequestSet, Served
from proxy.simulator.gpu.fake_nvml import build, environment
from proxy.units import ns_from_seconds

SLO: Final = "p95:ttft=1s,p95:tpot=100ms"
_START_SECONDS: Final = 180.0  # weights of 8 billion parameters are drawn at start
_STOP_SECONDS: Final = 15.0
_SWEEP_SECONDS: Final = 400.0


@dataclass(frozen=True, slots=True)
class Level:
    """One point of a sweep; None: not known."""

    concurrency: int
    requests: int
    failed: int
    output_tokens_per_second: float
    watts: float | None
    tokens_per_joule: float | None
    slo_met: bool | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A sweep: its points, and the energy source that its report names."""

    name: str
    energy_source: str | None
    levels: list[Level]


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the sweeps: levels of concurrency, seconds of each, tokens of each request."""

    levels: str
    seconds: int
    prompt: int
    output: int
    server: tuple[str, ...]  # arguments of the server beside its port
    sets: tuple[RequestSet, ...]  # sent through a proxy that records


@dataclass(frozen=True, slots=True)
class Wire:
    """Results on the wire: curves, and each set with what the proxy recorded and the engine ran."""

    curves: list[Curve]
    sets: list[tuple[RequestSet, Served]]


def measure(out: Path, load: Load, uuid: str, *, simulated: bool) -> Wire:
    """Run both sweeps and all sets; raise ``RuntimeError`` if a program fails.

    ``uuid``: of the GPU that the server computes on. ``loadgen --source nvml`` counts all GPUs.
    """
    server, data, admin = _free_ports(3)
    words, variables = [*load.server, "--steps", str(out / "steps.jsonl")], dict(os.environ)
    if simulated:
        state = out / "gpu.state"
        words += ["--state", str(state)]
        variables |= environment(build(out / "lib"), state)
    urls = [f"http://127.0.0.1:{port}" for port in (server, data, admin)]
    serve = ["proxy", "serve", "--upstream", urls[0], "--source", "nvml", "--devices", uuid]
    serve += ["--listen", f"127.0.0.1:{data}", "--admin", f"127.0.0.1:{admin}"]
    names: list[dict[str, str]] = []
    with _program(out / "server.log", ["proxy.gpu.server", "--port", str(server), *words], variables):
        _wait_for(f"{urls[0]}/v1/models")
        direct = _sweep(out / "direct", load, ["--source", "nvml", "--url", urls[0]], variables)
        with _program(out / "proxy.log", serve, variables):
            _wait_for(f"{urls[2]}/readyz")
            proxied = _sweep(out / "proxied", load, ["--url", urls[1], "--admin-url", urls[2]], variables)
        for number, requests in enumerate(load.sets):
            record = ["--record", str(_timeline(out, number))]
            with _program(out / f"proxy-{number}.log", [*serve, *record], variables):
                _wait_for(f"{urls[2]}/readyz")
                names.append(wire.send(urls[1], requests))
    steps = wire.read_steps(out / "steps.jsonl")
    return Wire(
        [read("loadgen --source nvml", direct), read("through the proxy", proxied)],
        [
            (requests, wire.served(_timeline(out, number), steps, names[number]))
            for number, requests in enumerate(load.sets)
        ],
    )


def _timeline(out: Path, number: int) -> Path:
    return out / f"set-{number}.jsonl.zst"


def read(name: str, folder: Path) -> Curve:
    """Return the curve of a sweep's ``run.json``."""
    points = json.loads((folder / "run.json").read_text())["points"]
    source = points[0].get("energy_source") if points else None
    return Curve(name, source, [_level(point) for point in points])


def _level(point: Mapping[str, Any]) -> Level:
    return Level(
        point["concurrency"],
        point["requests"],
        point["failed"],
        point["output_tokens_per_second"],
        point["watts"],
        point["tokens_per_joule"],
        point["slo_met"],
    )


def _sweep(out: Path, load: Load, words: Sequence[str], variables: Mapping[str, str]) -> Path:
    """Run a sweep; a missed SLO is a result, not a failure."""
    command = [sys.executable, "-m", "loadgen", "sweep", *words, "--concurrency", load.levels]
    command += ["--duration", f"{load.seconds}s", "--warmup", "1s", "--slo", SLO, "--quiet", "--force"]
    command += ["--input", str(load.prompt), "--output", str(load.output), "--out", str(out)]
    done = subprocess.run(
        command, env=dict(variables), capture_output=True, text=True, timeout=_SWEEP_SECONDS, check=False
    )
    if not (out / "run.json").exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"loadgen: exit status {done.returncode}: {last}")
    return out


@contextlib.contextmanager
def _program(log: Path, words: Sequence[str], variables: Mapping[str, str]) -> Iterator[None]:
    """Run a module of this package until the block ends."""
    with log.open("wb") as file:
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, env=dict(variables), stdout=file, stderr=file)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str) -> None:
    deadline = now_ns() + ns_from_seconds(_START_SECONDS)
    while now_ns() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2.0):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            sleep(0.1)
    raise RuntimeError(f"{url} did not respond within {_START_SECONDS:.0f} s; see the logs beside the report")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]
