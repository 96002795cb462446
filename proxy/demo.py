"""``jouleproxy demo``: a simulated GPU and engine behind the real proxy, with traffic.

Nothing here measures or relays: it starts the programs a user would start, and stops them. The GPU is the
NVML stand-in, read by the production code, where a C compiler exists; else the source named ``simulated``.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Final, NoReturn

from proxy.children import Child, reap
from proxy.clock import now_ns
from proxy.config import ConfigError
from proxy.simulator.standin import StandinError, build, environment
from proxy.units import ns_from_seconds

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
LEVELS: Final = "1..64"  # of concurrency
_POLL_SECONDS: Final = 0.05
_SLO: Final = "p95:ttft=1s,p95:tpot=50ms"
_POINT_SECONDS: Final = 4


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo's three servers listen, on 127.0.0.1."""

    engine: int
    data: int
    admin: int


def run(out: Path, *, once: bool, levels: str = LEVELS) -> int:
    """Run the demo; the exit status: that of the sweep with ``once``, 0 when stopped by a signal."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    started: list[Child] = []
    with tempfile.TemporaryDirectory(prefix="jouleproxy-demo-") as folder:
        try:
            return _play(Path(folder), out, started, levels if once else None)
        except _Stopped:
            return 0
        finally:
            _end(started)


class _Stopped(BaseException):
    """A signal asked for the end."""


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _play(folder: Path, out: Path, started: list[Child], levels: str | None) -> int:
    ports = Ports(*_free_ports(3))
    state = folder / "gpu"
    source, variables = _source(folder, state)
    _say(f"simulated GPU and engine; energy source {source}")
    engine = _module("proxy.simulator", "--port", str(ports.engine), "--state", str(state))
    _spawn(started, "engine", engine, os.environ)
    _wait_for(f"http://127.0.0.1:{ports.engine}/v1/models", started)
    _spawn(started, "proxy", _serve_words(ports, source), {**os.environ, **variables})
    _wait_for(f"http://127.0.0.1:{ports.admin}/readyz", started)
    if levels is not None:
        return _sweep(ports, out, started, levels)
    _say(f"point a client at  http://127.0.0.1:{ports.data}/v1")
    _say(f"dashboard          http://127.0.0.1:{ports.admin}/")
    _say(f"metrics            http://127.0.0.1:{ports.admin}/metrics")
    _say("traffic runs at 4 requests/s; Ctrl-C stops everything")
    words = _loadgen(ports, "--rate", "4", "--duration", "1440m", "--quiet", "--out", str(out))
    traffic = _spawn(started, "traffic", words, os.environ)
    return _status_of(traffic)


def _sweep(ports: Ports, out: Path, started: list[Child], levels: str) -> int:
    words = _loadgen(
        ports,
        *("--concurrency", levels, "--slo", _SLO, "--duration", f"{_POINT_SECONDS}s"),
        *("--warmup", "1s", "--input", "256", "--output", "64", "--out", str(out)),
        command="sweep",
    )
    status = _status_of(_spawn(started, "loadgen", words, os.environ))
    files = [name for name in ("run.json", "curve.svg", "curve.png", "report.html") if (out / name).exists()]
    for name in files:
        _say(f"written: {out / name}")
    _say("all joules are those of a simulated GPU; without --once it keeps running, with a dashboard")
    return status


def _source(folder: Path, state: Path) -> tuple[str, Mapping[str, str]]:
    """The energy source of the proxy, and the variables it needs to find it."""
    try:
        library = build(folder / "lib")
    except StandinError as error:
        _say(f"no NVML stand-in: {error}")
        return f"simulated:{state}", {}
    return "nvml", environment(library, state)


def _serve_words(ports: Ports, source: str) -> list[str]:
    return _module(
        "proxy",
        *("serve", "--upstream", f"http://127.0.0.1:{ports.engine}", "--source", source),
        *("--listen", f"127.0.0.1:{ports.data}", "--admin", f"127.0.0.1:{ports.admin}"),
    )


def _module(name: str, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", name, *words]


def _loadgen(ports: Ports, *words: str, command: str = "run") -> list[str]:
    """The installed load generator: the proxy knows it as a program only."""
    beside = Path(sys.executable).with_name("loadgen")
    program = str(beside) if beside.exists() else shutil.which("loadgen")
    if program is None:
        raise ConfigError("loadgen is not installed beside jouleproxy: install the package again")
    data, admin = f"http://127.0.0.1:{ports.data}", f"http://127.0.0.1:{ports.admin}"
    return [program, command, *words, "--url", data, "--admin-url", admin]


def _spawn(started: list[Child], name: str, words: list[str], variables: Mapping[str, str]) -> Child:
    """Start a program that dies with this one."""

    def body(_ready_fd: int) -> NoReturn:
        os.execve(words[0], words, dict(variables))

    child = Child(name, body)
    child.start()
    started.append(child)
    return child


def _wait_for(url: str, started: list[Child]) -> None:
    """Until the URL answers; raises :class:`ConfigError` if a program ends or it takes too long."""
    deadline = now_ns() + ns_from_seconds(START_SECONDS)
    while now_ns() < deadline:
        if _answers(url):
            return
        for pid, status in reap().items():
            for child in started:
                if child.pid == pid:
                    child.pid = None
                    raise ConfigError(f"demo: the {child.name} ended with status {status} at start")
        sleep(_POLL_SECONDS)
    raise ConfigError(f"demo: {url} did not answer within {START_SECONDS:.0f} s")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _status_of(child: Child) -> int:
    """Wait for a program's end."""
    _, status = os.waitpid(child.pid or 0, 0)
    child.pid = None
    return os.waitstatus_to_exitcode(status)


def _end(started: list[Child]) -> None:
    """Stop the programs, the last started first; what does not end is killed."""
    for child in reversed(started):
        child.send(signal.SIGTERM)
        deadline = now_ns() + ns_from_seconds(STOP_SECONDS)
        while child.pid is not None and now_ns() < deadline:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(child.pid, os.WNOHANG)[0]:
                    child.pid = None
                    break
            sleep(_POLL_SECONDS)
        child.send(signal.SIGKILL)
        child.forget_pipe()


def _free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1, all different."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _say(line: str) -> None:
    sys.stderr.write(f"demo: {line}\n")
    sys.stderr.flush()
