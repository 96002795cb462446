"""``jouleproxy demo``: run the proxy in front of simulated engines, with a sweep and traffic.

There are a language model and an image model, each on a simulated GPU of its own; ``--once`` sweeps the
language model only, then ends. Nothing here measures or relays: it starts the programs that a user would
start, and stops them. The GPUs are read by the production code through the substitute NVML library if a C
compiler exists, else by the source ``simulated``.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Final, NoReturn

from proxy.clock import now_ns
from proxy.config import ConfigError
from proxy.simulator.gpu.fake_nvml import FakeNvmlError, build, environment
from proxy.subprocesses import Child, reap
from proxy.units import ns_from_seconds

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
LEVELS: Final = "1..64"  # of concurrency
_POLL_SECONDS: Final = 0.05
_SLO: Final = "p95:ttft=1s,p95:tpot=50ms"
_POINT_SECONDS: Final = 4
_FOR_EVER: Final = "1440m"  # a day; the demo is stopped before


@dataclass(frozen=True, slots=True)
class _Model:
    """A model: its name for clients, the simulator's profile, its device."""

    name: str
    profile: str
    device: str


_TEXT: Final = _Model("llama-3.1-8b", "h100-llama-3.1-8b", "gpu0")
_IMAGES: Final = _Model("pixart-sigma", "h100-pixart-sigma", "gpu1")


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1: data and admin port of the proxy, and one engine for each model."""

    data: int
    admin: int
    engines: tuple[int, ...]


def run(out: Path, *, once: bool, levels: str = LEVELS) -> int:
    """Run the demo; return its exit status.

    Args:
        out: Folder for the results.
        once: Run one sweep and end, with the exit status of the sweep; else run until a signal, status 0.
        levels: Concurrency levels of the sweep.

    Raises:
        ConfigError: if a program is missing, ends at start or does not respond.
    """
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
    """Raised by the signal handler to end the demo."""


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _play(folder: Path, out: Path, started: list[Child], levels: str | None) -> int:
    fleet = (_TEXT,) if levels is not None else (_TEXT, _IMAGES)
    data, admin, *engines = _free_ports(2 + len(fleet))
    ports = Ports(data, admin, tuple(engines))
    state = folder / "gpu"
    source, variables = _source(folder, state)
    _say(f"simulated: {', '.join(f'{model.name} on {model.device}' for model in fleet)}; source {source}")
    words = [word for model, port in zip(fleet, engines, strict=True) for word in _engine(model, port)]
    _spawn(started, "engine", _module("proxy.simulator", "--state", str(state), *words), os.environ)
    for port in engines:
        _wait_for(f"http://127.0.0.1:{port}/v1/models", started)
    _spawn(started, "proxy", _serve_words(folder, fleet, ports, source), {**os.environ, **variables})
    _wait_for(f"http://127.0.0.1:{ports.admin}/readyz", started)
    if levels is not None:
        status = _sweep(ports, out, started, levels)
        _say(
            "all joules are those of a simulated GPU; without --once a fleet keeps running, with a dashboard"
        )
        return status
    return _live(ports, out, started)


def _engine(model: _Model, port: int) -> list[str]:
    return ["--profile", model.profile, "--port", str(port)]


def _live(ports: Ports, out: Path, started: list[Child]) -> int:
    """Send images continuously, sweep the language model, then send steady traffic to it until a signal."""
    _say(f"point a client at  http://127.0.0.1:{ports.data}/v1")
    _say(f"dashboard          http://127.0.0.1:{ports.admin}/")
    _say(f"metrics            http://127.0.0.1:{ports.admin}/metrics")
    _say(f"{_IMAGES.name} gets an image every 2 s, {_TEXT.name} a sweep; Ctrl-C stops everything")
    images = ("--rate", "0.5", "--endpoint", "images", "--model", _IMAGES.name, "--picture", "1024x1024")
    _send_steadily(ports, out / "images", started, *images)
    _sweep(ports, out, started, LEVELS)
    _say(f"all joules are those of simulated GPUs; now {_TEXT.name} gets 4 requests/s until Ctrl-C")
    return _status_of(_send_steadily(ports, out / "traffic", started, "--rate", "4", "--model", _TEXT.name))


def _send_steadily(ports: Ports, out: Path, started: list[Child], *words: str) -> Child:
    """Start a load generator that runs until it is stopped, without output."""
    command = _loadgen(ports, *words, "--duration", _FOR_EVER, "--quiet", "--force", "--out", str(out))
    return _spawn(started, "traffic", command, os.environ)


def _sweep(ports: Ports, out: Path, started: list[Child], levels: str) -> int:
    words = _loadgen(
        ports,
        *("--concurrency", levels, "--slo", _SLO, "--duration", f"{_POINT_SECONDS}s", "--warmup", "1s"),
        *("--model", _TEXT.name, "--devices", _TEXT.device),
        *("--input", "256", "--output", "64", "--force", "--out", str(out)),
        command="sweep",
    )
    status = _status_of(_spawn(started, "loadgen", words, os.environ))
    files = [name for name in ("run.json", "curve.svg", "curve.png", "report.html") if (out / name).exists()]
    for name in files:
        _say(f"written: {out / name}")
    return status


def _source(folder: Path, state: Path) -> tuple[str, Mapping[str, str]]:
    """Return the energy source of the proxy and the environment variables that it needs."""
    try:
        library = build(folder / "lib")
    except FakeNvmlError as error:
        _say(f"no substitute NVML library: {error}")
        return f"simulated:{state}", {}
    return "nvml", environment(library, state)


def _serve_words(folder: Path, fleet: Sequence[_Model], ports: Ports, source: str) -> list[str]:
    """Write the proxy's settings, a backend for each model, and return its command."""
    tables = (
        f'[[backends]]\nurl = "http://127.0.0.1:{port}"\nname = "{model.name}"\n'
        f'models = ["{model.name}"]\ndevices = ["{model.device}"]\n'
        for model, port in zip(fleet, ports.engines, strict=True)
    )
    file = folder / "jouleproxy.toml"
    file.write_text("\n".join(tables), "utf-8")
    return _module(
        "proxy",
        *("serve", "--config", str(file), "--source", source),
        *("--listen", f"127.0.0.1:{ports.data}", "--admin", f"127.0.0.1:{ports.admin}"),
    )


def _module(name: str, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", name, *words]


def _loadgen(ports: Ports, *words: str, command: str = "run") -> list[str]:
    """Return the command of the installed load generator; the proxy never imports it."""
    beside = Path(sys.executable).with_name("loadgen")
    program = str(beside) if beside.exists() else shutil.which("loadgen")
    if program is None:
        raise ConfigError("loadgen is not installed beside jouleproxy: install the package again")
    data, admin = f"http://127.0.0.1:{ports.data}", f"http://127.0.0.1:{ports.admin}"
    return [program, command, *words, "--url", data, "--admin-url", admin]


def _spawn(started: list[Child], name: str, words: list[str], variables: Mapping[str, str]) -> Child:
    """Start a program that the kernel ends when this one ends."""

    def body(_ready_fd: int) -> NoReturn:
        os.execve(words[0], words, dict(variables))

    child = Child(name, body)
    child.start()
    started.append(child)
    return child


def _wait_for(url: str, started: list[Child]) -> None:
    """Wait until the URL responds; raises :class:`ConfigError` if a program ends or it takes too long."""
    deadline = now_ns() + ns_from_seconds(START_SECONDS)
    while now_ns() < deadline:
        if _responds(url):
            return
        for pid, status in reap().items():
            for child in started:
                if child.pid == pid:
                    child.pid = None
                    raise ConfigError(f"demo: the {child.name} ended with status {status} at start")
        sleep(_POLL_SECONDS)
    raise ConfigError(f"demo: {url} did not respond within {START_SECONDS:.0f} s")


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _status_of(child: Child) -> int:
    """Wait for a program to end; return its exit status."""
    _, status = os.waitpid(child.pid or 0, 0)
    child.pid = None
    return os.waitstatus_to_exitcode(status)


def _end(started: list[Child]) -> None:
    """Stop the programs in reverse order; those that do not end in time are killed."""
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
    """Return different free ports of 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _say(line: str) -> None:
    sys.stderr.write(f"demo: {line}\n")
    sys.stderr.flush()
