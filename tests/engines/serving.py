"""Start and stop servers as separate processes, and poll until they are ready."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from proxy.clock import now_ns
from proxy.units import ns_from_seconds

_POLL_SECONDS: Final = 0.02
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Command:
    """A server to start: what to run, where it logs, which URL answers once it is ready."""

    argv: tuple[str, ...]
    log: Path
    ready: str
    within_seconds: float
    env: Mapping[str, str]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: Command) -> Iterator[None]:
    """Run the server, with all its subprocesses, within the block; raises if it does not start."""
    with command.log.open("wb") as log:
        process = subprocess.Popen(
            command.argv,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.env},
            start_new_session=True,
        )
    try:
        _wait_ready(command, process)
        yield
    finally:
        _stop(process)


def until(condition: Callable[[], bool], *, seconds: float) -> float:
    """Poll until the condition is true; return the seconds. Raises ``TimeoutError``."""
    start = now_ns()
    deadline = start + ns_from_seconds(seconds)
    while not condition():
        if now_ns() > deadline:
            raise TimeoutError(f"did not come to hold within {seconds} s")
        time.sleep(_POLL_SECONDS)
    return (now_ns() - start) / 1e9


def _wait_ready(command: Command, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command.argv[0]} ended: {_tail(command.log)}")
        with suppress(httpx.HTTPError):
            return httpx.get(command.ready, timeout=2.0).status_code == 200
        return False

    try:
        until(ready, seconds=command.within_seconds)
    except TimeoutError as error:
        raise RuntimeError(f"{command.argv[0]} {error}: {_tail(command.log)}") from error


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server; what is left of its session then is killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
