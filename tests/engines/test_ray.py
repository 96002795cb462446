"""``loadgen --ray`` on a real Ray cluster of two nodes, in an environment of its own (once, about 20 s)."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from loadgen.config.spec import Spec
from loadgen.drive.pacer import OpenLoop, schedule_ns
from loadgen.drive.planning import plan
from loadgen.results.run_directory import load
from loadgen.selfcheck.truth_server import Truth, TruthServer

RAY: Final = "2.60.0"
ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = ROOT / "build" / "ray" / "bin"
NO_REPORTS: Final = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def environment() -> Path:
    """Return the folder of programs of an environment with Ray and this project."""
    stamp = BIN.parent / f"ray-{RAY}"
    if not stamp.exists():
        pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        words = ["-c", "constraints.txt", "-e", ".", f"ray=={RAY}", "psutil"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(BIN.parent)], [*pip, *words]):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"Ray cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        stamp.touch()
    return BIN


@pytest.fixture(scope="session")
def cluster(environment: Path) -> Iterator[str]:
    """Return the address of a cluster of two nodes."""
    command = [str(environment / "python"), str(Path(__file__).with_name("ray_cluster.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=NO_REPORTS) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield address
        process.stdin.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run a server of known times in a thread, because the tests block on processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = TruthServer(Truth(0.05, 0.01, 8))
    asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(10)
    yield made.url
    asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def loadgen(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "loadgen"), "run", "--admin-url", "http://127.0.0.1:9", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=NO_REPORTS)


def test_one_worker_a_node_offers_the_one_schedule(
    environment: Path, cluster: str, server: str, tmp_path: Path
) -> None:
    words = ("--rate", "50", "--duration", "4s", "--output", "8", "--seed", "7", "--slo", "2s")
    done = loadgen(environment, "--url", server, "--ray", cluster, "--out", str(tmp_path / "run"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    run, records = load(tmp_path / "run")
    asked = Spec(
        command="run", mode="rate", levels=(50.0,), url=server, admin_url=server, duration_seconds=4.0, seed=7
    )
    pacer = plan(asked, 50.0)[1]
    assert isinstance(pacer, OpenLoop)
    assert [record.scheduled_ns for record in records] == schedule_ns(pacer)
    assert all(record.ok for record in records)
    assert run.verdict == "pass"


def test_a_missing_cluster_is_reported(environment: Path, server: str) -> None:
    done = loadgen(environment, "--url", server, "--ray", "127.0.0.1:1", "--rate", "5", "--duration", "1s")
    assert done.returncode == 2
    assert "--ray 127.0.0.1:1: no cluster there" in done.stderr
