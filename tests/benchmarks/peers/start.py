"""Start each peer: one worker, keep-alive on both sides, no access log, nothing buffered, else as is."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil

from tests.benchmarks.peers import install
from tests.benchmarks.peers.client import PATH
from tests.e2e.serving import free_port

START_SECONDS: Final = 90.0  # LiteLLM imports for 10 s on a free core


class NotReadyError(Exception):
    """A proxy was started and does not serve; ``str`` is one line."""


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves: where, and its processes."""

    name: str
    port: int
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far, to the nanosecond (``clock_getcpuclockid``)."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids)

    def rss_bytes(self) -> int:
        """Resident memory of all its processes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids)


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start a proxy: its command from (folder, port to listen on, port of the backend)."""

    name: str
    command: Callable[[Path, int, int], list[str]]
    program: str | None = None  # by the installer's name; None: our own Python
    variables: Mapping[str, str] | None = None

    def missing(self) -> str | None:
        """Why it cannot be started; None: it can."""
        if self.program is None or install.program(self.program) is not None:
            return None
        return install.why_not(self.program)


def _program(name: str) -> str:
    found = install.program(name)
    assert found is not None
    return str(found)


def _nginx(folder: Path, port: int, backend: int) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "worker_rlimit_nofile 16384; events { worker_connections 8192; }\n"
        f"http {{ access_log off; {paths} keepalive_requests 10000000; client_body_buffer_size 1m;\n"
        f"upstream backend {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 10000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ proxy_pass http://backend;\n"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; tcp_nodelay on; } } }\n'
    )
    return [_program("nginx"), "-e", f"{folder}/nginx.log", "-c", str(config)]


def _haproxy(folder: Path, port: int, backend: int) -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8192\n"
        "defaults\n  mode http\n  option http-no-delay\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{backend}\n"
    )
    return [_program("haproxy"), "-db", "-f", str(config)]


def _envoy(folder: Path, port: int, backend: int) -> list[str]:
    def address(number: int) -> object:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    kind = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(backend)}}]}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "backend", "endpoints": [endpoint]},
        "circuit_breakers": {"thresholds": [{"max_connections": 8192, "max_requests": 8192}]},
    }
    listener = {"address": address(port), "filter_chains": [chain]}
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    words = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    return [_program("envoy"), "-c", str(config), *words]


def _vllm_router(_folder: Path, port: int, backend: int) -> list[str]:
    words = {
        "--worker-urls": f"http://127.0.0.1:{backend}",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--policy": "round_robin",
        "--log-level": "error",
        "--prometheus-port": str(free_port()),
        "--max-concurrent-requests": "8192",
        "--worker-startup-check-interval": "1",
    }
    return [_program("vllm-router"), *(word for pair in words.items() for word in pair)]


def _aiohttp(_folder: Path, port: int, backend: int) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.peers.aiohttp_relay", str(port), str(backend)]


def _litellm(folder: Path, port: int, backend: int) -> list[str]:
    config = folder / "litellm.json"
    model = {"model": "openai/bench-model", "api_base": f"http://127.0.0.1:{backend}/v1", "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": "bench-model", "litellm_params": model}]}))
    words = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    return [_program("litellm"), "--config", str(config), *words]


_LITELLM_VARIABLES: Final = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads it
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # keyless, as the other peers
}

PEERS: Final = (
    Peer("nginx", _nginx, "nginx"),
    Peer("HAProxy", _haproxy, "haproxy", {"LD_LIBRARY_PATH": install.libraries()}),
    Peer("Envoy", _envoy, "envoy"),
    Peer("vllm-router", _vllm_router, "vllm-router", {"TOKIO_WORKER_THREADS": "1"}),
    Peer("aiohttp relay", _aiohttp),
    Peer("LiteLLM", _litellm, "litellm", _LITELLM_VARIABLES),
)


@contextmanager
def backend(folder: Path) -> Iterator[int]:
    """Return the backend's port."""
    command = [sys.executable, "-m", "tests.benchmarks.peers.backend"]
    port = free_port()
    with _started([*command, str(port)], folder / "backend.log", {}) as process:
        _wait(process, port, folder / "backend.log")
        yield port


@contextmanager
def all_started(
    peers: tuple[Peer, ...], folder: Path, behind: int
) -> Iterator[tuple[list[Running], dict[str, str]]]:
    """All that can be started, side by side, and why others cannot; stopped after the block."""
    with ExitStack() as stack:
        begun, running, skipped = [], [], {}
        for peer in peers:
            if (reason := peer.missing()) is not None:
                skipped[peer.name] = reason
                continue
            port, log = free_port(), folder / f"{peer.program or 'aiohttp'}.log"
            process = stack.enter_context(
                _started(peer.command(folder, port, behind), log, peer.variables or {})
            )
            begun.append((peer.name, port, process, log))
        for name, port, process, log in begun:
            try:
                _wait(process, port, log)
            except NotReadyError as error:
                skipped[name] = str(error)
            else:
                running.append(Running(name, port, tree(process.pid)))
        yield running, skipped


@contextmanager
def _started(
    command: list[str], log: Path, variables: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **variables})
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            if child.is_running():
                child.kill()


def tree(pid: int) -> tuple[int, ...]:
    """Return a process and all its descendants."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Until it answers a request as it should."""
    body = {"model": "bench-model", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotReadyError(f"it ended with status {process.poll()}: {_last(log)}")
        try:
            if httpx.post(f"http://127.0.0.1:{port}{PATH}", json=body, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise NotReadyError(f"it did not answer within {START_SECONDS:g} s: {_last(log)}")


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "no output"
