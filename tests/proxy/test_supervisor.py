import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.config import Address, Backend, Config, MeterConfig, RelayConfig
from proxy.supervisor import fixed, settled
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
