import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import sleep

import pytest

from proxy.energy.sources.simulated import SimulatedSource
from tests.timing import PATIENCE_SECONDS


@contextmanager
def running(state: Path, port: int, *words: str) -> Iterator[None]:
    command = [sys.executable, "-m", "proxy.simulator", "--port", str(port), "--state", str(state), *words]
    with subprocess.Popen(command) as process:
        try:
            for each in (port, *(int(after) for word, after in pairwise(words) if word == "--port")):
                _wait_for(each)
            yield
        finally:  # a failed test must not wait for a process that nobody ends
            process.send_signal(signal.SIGTERM)
            code = process.wait(PATIENCE_SECONDS)
        assert code == 0


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            sleep(0.05)


def post(port: int, path: str, body: object) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        data: bytes = answer.read()
        return data


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_every_device_of_a_profile_draws_its_part_and_breaks_on_command(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path / "gpu", port, "--profile", "h100x4-llama-3.1-70b"):
        source = SimulatedSource(tmp_path / "gpu")
        assert len(source.open()) == 4
        post(port, "/v1/completions", {"model": "llama-3.1-70b", "prompt": "x", "max_tokens": 8})
        first, *others = (sample.energy_mj for sample in source.read())
        assert first is not None
        assert first > 0
        post(port, "/faults", {"kind": "lost", "device": 1})
        assert len(source.read()) == 3
        post(port, "/faults", {"kind": "restored", "device": 1})
        post(port, "/faults", {"kind": "reset", "device": 0})
        after, *_ = (sample.energy_mj for sample in source.read())
        assert after is not None
        assert after < first
        assert len(others) == 3
        source.close()


def test_a_fleet_has_a_port_and_devices_for_each_profile(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    words = ("--profile", "h100x2-qwen3-30b-a3b-2507", "--port", str(other), "--profile", "h100-pixart-sigma")
    with running(tmp_path / "gpu", port, *words):
        source = SimulatedSource(tmp_path / "gpu")
        assert len(source.open()) == 3
        before = [sample.energy_mj or 0.0 for sample in source.read()]
        post(other, "/v1/images/generations", {"prompt": "x", "num_inference_steps": 4})
        after = [sample.energy_mj or 0.0 for sample in source.read()]
        spent = [now - then for now, then in zip(after, before, strict=True)]
        assert min(spent[:2]) > 0  # idle
        assert spent[2] > 1.5 * max(spent[:2])  # the idle ones draw for as long as this test was held up
        post(other, "/faults", {"kind": "lost"})
        assert [sample.device for sample in source.read()] == ["gpu0", "gpu1"]
        source.close()


def test_a_diffusion_profile_makes_an_image_server(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path / "gpu", port, "--profile", "b200-pixart-sigma"):
        answer = post(
            port, "/v1/images/generations", {"prompt": "x", "size": "64x64", "num_inference_steps": 2}
        )
    assert json.loads(answer)["size"] == "64x64"


def test_a_full_queue_and_a_cap_can_be_asked_for(tmp_path: Path) -> None:
    port = free_port()
    words = ("--max-num-seqs", "1", "--max-waiting", "0", "--cap-watts", "300")
    with running(tmp_path / "gpu", port, *words):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(port, "/v1/completions", {"model": "llama-3.1-8b", "prompt": "x"})
        assert caught.value.code == 503
        caught.value.close()
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(tmp_path / "s"), "--cap-watts", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "not above idle_watts" in done.stderr) == (2, True)


def test_an_unknown_profile_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(tmp_path / "s"), "--profile", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("simulator: profile none: no such profile")


def test_all_profiles_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy.simulator", "--profiles"], capture_output=True, text=True, check=True
    )
    assert {"h100-llama-3.1-8b", "h100-wan2.1-t2v-14b"} <= set(done.stdout.split())


def test_a_board_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proxy.simulator", "--state", str(tmp_path / "s"), "--deep-idle", "90,1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "simulator: --deep-idle 90: idle is 74 W\n")
