import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.app import check_backend, free_address, reserved
from proxy.config import Address, Backend, ConfigError


@contextmanager
def supervised(log: Path, failing: str = "") -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.fakes.supervised", str(log), failing]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def lines(log: Path, word: str) -> int:
    return log.read_text().splitlines().count(word) if log.exists() else 0


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_workers_before_the_meter(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with supervised(log) as process:
        until(lambda: lines(log, "relay start") == 2 and lines(log, "meter start") == 1)
        process.send_signal(number)
        assert process.wait(10) == 0
    assert log.read_text().splitlines()[-3:] == ["relay end", "relay end", "meter end"]


@pytest.mark.parametrize("name", ["meter", "relay"])
def test_a_dead_child_is_started_again(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    with supervised(log, name) as process:
        until(lambda: lines(log, f"{name} start") == {"meter": 2, "relay": 3}[name])
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "ended with status 3: starting it again" in process.stderr.read()


def test_a_meter_that_cannot_use_its_settings_stops_the_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log, "meter refused") as process:
        assert process.wait(10) == 2
        assert process.stderr is not None
        assert process.stderr.read() == "jouleproxy: source: no such device\n"
    assert lines(log, "relay start") == 0


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log) as process:
        until(lambda: lines(log, "relay start") == 2)
        pids = children(process.pid)
        assert len(pids) == 3
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_reload_replaces_workers_and_keeps_the_meter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log) as process:
        until(lambda: lines(log, "relay start") == 2)
        assert process.stderr is not None
        while "metrics" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGHUP)
        until(lambda: lines(log, "relay end") == 2)
        assert lines(log, "relay start") == 4
        assert lines(log, "meter start") == 1
        process.terminate()
        assert process.wait(10) == 0


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--listen 127.0.0.1:{port} is in use"):
            free_address(Address("127.0.0.1", port), "--listen")
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)
    with pytest.raises(ConfigError, match=r"cannot be reached \(Connection refused\)"):
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)


def test_port_0_is_settled_and_kept_for_several_workers() -> None:
    with reserved(Address("127.0.0.1", 0), "--listen") as address:
        assert address.port
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((address.host, address.port))
