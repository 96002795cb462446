"""Bad input to the installed command: one line that states what would be correct, exit status 2."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.timing import PATIENCE_SECONDS

COMMAND = Path(sys.executable).with_name("jouleproxy")


def refusal(*words: str, command: Path = COMMAND) -> str:
    done = subprocess.run(
        [command, *words], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_an_unreachable_upstream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    line = refusal("--upstream", url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert f"upstream {url} cannot be reached (Connection refused)" in line


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for option, other in (("--listen", "--admin"), ("--admin", "--listen")):
            line = refusal("--upstream", f"http://{address}", option, address, other, "127.0.0.1:0")
            assert f"{option} {address} is in use" in line


def test_an_unknown_key_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "j.toml"
    path.write_text("wrokers = 1\n")
    assert f"{path}: unknown key wrokers: did you mean workers?" in refusal("serve", "--config", str(path))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--upstream", "localhost:8000"], "must be http://HOST[:PORT]"),
        (["--upstraem", "http://h"], "unknown option --upstraem: did you mean --upstream?"),
        (["serve"], "give --upstream URL"),
        (["sevre"], "unknown command sevre: did you mean serve?"),
        (["attribute"], "timeline"),
        (["attribute", "x", "--policy", "fair"], "'steps', 'tokens', 'overlap'"),
        (["attribute", "/nowhere"], "/nowhere: No such file or directory"),
        (["explain"], "run"),
        (["explain", "/nowhere"], "/nowhere: No such file or directory"),
        (["agent", "--listen", "here"], "--listen 'here': must be HOST:PORT"),
        (["--upstream", "http://h", "--admin", "0.0.0.0:9001"], "give --admin-token"),
        (["--upstream", "http://h", "--policy", "fair"], "steps"),
        (["--upstream", "http://h", "--workers", "0"], "must be a whole number above 0"),
    ],
)
def test_wrong_words(words: list[str], reason: str) -> None:
    assert reason in refusal(*words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rate", "32", "--slo", "200"], "200"),
        (["--rate", "32", "--slo", "p200:ttft=1s"], "p200"),
        (["--rate", "32", "--slo", "speed=1s"], "speed"),
        (["--rate", "fast"], "fast"),
        (["sweep", "--concurrency", "64..1"], "64..1"),
        (["sweep", "--concurrency", "1...64"], "1...64"),
        (["--rate", "1", "--duration", "soon"], "soon"),
        (["--raet", "1"], "--raet"),
        (["--rate", "1", "--requests", "1", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["report", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_words_to_the_load_generator(words: list[str], reason: str) -> None:
    line = refusal(*words, command=COMMAND.with_name("loadgen"))
    assert reason in line


def test_help_fits_a_screen() -> None:
    for words in (["--help"], ["serve", "--help"]):
        done = subprocess.run(
            [COMMAND, *words], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
        )
        assert "jouleproxy --upstream http://127.0.0.1:8000" in done.stdout
        assert len(done.stdout.splitlines()) <= 40
