import asyncio
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

from proxy.config import Address, Backend, Config, ConfigError, MeterConfig, RelayConfig
from proxy.supervisor import (
    check_backend,
    check_certificates,
    check_output,
    fixed,
    free_address,
    reserved,
    settled,
)
from tests.fakes.certificates import certificates
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.timing import PATIENCE_SECONDS


@contextmanager
def supervised(log: Path, failing: str = "") -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.fakes.supervised", str(log), failing]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
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
        assert process.wait(PATIENCE_SECONDS) == 0
    assert log.read_text().splitlines()[-3:] == ["relay end", "relay end", "meter end"]


@pytest.mark.parametrize("name", ["meter", "relay"])
def test_a_dead_child_is_started_again(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    with supervised(log, name) as process:
        until(lambda: lines(log, f"{name} start") >= {"meter": 2, "relay": 3}[name])  # both relays may end
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stderr is not None
        assert "ended with status 3: starting it again" in process.stderr.read()


def test_a_meter_that_cannot_use_its_settings_stops_the_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log, "meter refused") as process:
        assert process.wait(PATIENCE_SECONDS) == 2
        assert process.stderr is not None
        assert process.stderr.read() == "jouleproxy: source: no such device\n"
    assert lines(log, "relay start") == 0


def test_a_meter_that_refuses_its_settings_later_is_not_started_all_the_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log, "meter refused again") as process:
        assert process.stderr is not None
        said = ""
        while "trying again" not in said:
            said += process.stderr.readline()
        assert "meter cannot use its settings (see above): trying again in 60 s, or at SIGHUP" in said
        assert lines(log, "meter start") == 2
        reload(process, log, "2 9001 20")
        until(lambda: lines(log, "meter start") == 3)
        process.terminate()
        assert process.wait(10) == 0


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with supervised(log) as process:
        until(lambda: lines(log, "relay start") == 2)
        pids = children(process.pid)
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]
        assert names == ["jp-meter", "jp-relay-1", "jp-relay-2"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)
        until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def reload(process: subprocess.Popen[str], log: Path, settings: str) -> str:
    """Give new settings; what the supervisor says of them, up to its verdict."""
    log.with_suffix(".settings").write_text(settings)
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    said = ""
    while "reloaded" not in said:
        said += process.stderr.readline()
    return said


@contextmanager
def greeted(log: Path) -> Iterator[subprocess.Popen[str]]:
    with supervised(log) as process:
        assert process.stderr is not None
        while "metrics" not in process.stderr.readline():
            pass
        yield process
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def test_reload_tells_those_that_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with greeted(log) as process:
        assert "settings reloaded: http://127.0.0.1:1" in reload(process, log, "2 9001 20")
        until(lambda: lines(log, "relay hup") == 2 and lines(log, "meter hup") == 1)
        assert lines(log, "relay start") + lines(log, "meter start") == 3


def test_reload_of_what_is_wrong_changes_nothing_and_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with greeted(log) as process:
        said = reload(process, log, "many 9001 20")
    assert said.count("\n") == 1
    assert (
        "settings not reloaded, the old ones remain in effect: workers 'many': must be a whole number" in said
    )
    assert "hup" not in log.read_text()


def test_reload_starts_and_ends_workers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with greeted(log) as process:
        reload(process, log, "3 9001 20")
        until(lambda: lines(log, "relay start") == 3)
        reload(process, log, "1 9001 20")
        until(lambda: lines(log, "relay end") == 2)
        assert lines(log, "relay hup") == 3


def test_reload_says_what_cannot_change(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with greeted(log) as process:
        assert "unchanged until a restart: meter.admin\n" in reload(process, log, "2 9002 20")
        assert lines(log, "meter start") == 1


def test_a_meter_whose_settings_changed_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with greeted(log) as process:
        assert "the meter's settings changed" in reload(process, log, "2 9001 50")
        until(lambda: lines(log, "meter start") == 2)
        assert lines(log, "relay start") == 2


def test_what_stays_while_it_runs() -> None:
    running = Config((), RelayConfig(listen=Address("h", 80)), MeterConfig(admin=Address("h", 81)))
    tls = RelayConfig(listen=Address("h", 0), tls_certificate="c", tls_key="k", workers=3)
    new = Config((Backend("http://b"),), tls, MeterConfig(sample_hz=3.0))
    kept = settled(new, running)
    assert (kept.backends, kept.relay.workers, kept.meter.sample_hz) == (new.backends, 3, 3.0)
    assert (kept.relay.listen, kept.meter.admin, kept.relay.tls_key) == (
        Address("h", 80),
        Address("h", 81),
        None,
    )
    assert fixed(new, running) == ["relay.tls_certificate", "relay.tls_key", "meter.admin"]
    assert fixed(running, running) == []


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--listen 127.0.0.1:{port} is in use"):
            free_address(Address("127.0.0.1", port), "--listen")
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)
    with pytest.raises(ConfigError, match=r"cannot be reached \(Connection refused\)"):
        check_backend(Backend(f"http://127.0.0.1:{port}"), 1.0)


async def test_an_http_upstream_that_expects_tls_is_reported_at_start(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    async with RawUpstream(answer(b""), tls=made.server) as backend:
        url = backend.url.replace("https", "http")
        with pytest.raises(ConfigError, match=f"{url} expects TLS: is {backend.url} meant"):
            await asyncio.to_thread(check_backend, Backend(url), 5.0)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 No\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"SSH"])
async def test_an_upstream_without_tls_is_accepted_whatever_it_responds(said: bytes) -> None:
    async with RawUpstream(answer(said)) as backend:
        await asyncio.to_thread(check_backend, Backend(backend.url), 5.0)


def test_a_unix_socket_is_tried_as_any_backend(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_backend(Backend(f"unix:{path}"), 1.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        check_backend(Backend(f"unix:{path}"), 1.0)


def test_certificates_are_read_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="ca_file '/nowhere'"):
        check_certificates(Config((Backend("https://h", ca_file="/nowhere"),)))
    with pytest.raises(ConfigError, match="tls-certificate '/nowhere'"):
        check_certificates(Config((), RelayConfig(tls_certificate="/nowhere", tls_key="/nowhere")))


def test_port_0_is_settled_and_kept_for_several_workers() -> None:
    with reserved(Address("127.0.0.1", 0), "--listen") as address:
        assert address.port
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((address.host, address.port))


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    check_output("--ledger", tmp_path / "l")
    assert not (tmp_path / "l").exists()
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path, "it is a directory"),
        (tmp_path / "no" / "l", "the directory"),
        (tmp_path / "file" / "l", "the directory"),
    ):
        with pytest.raises(ConfigError, match=f"--ledger '{path}' cannot be written: {reason}"):
            check_output("--ledger", path)
