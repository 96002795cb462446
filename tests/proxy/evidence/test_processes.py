import os
import subprocess
import sys

from proxy.evidence.processes import engine_pids, foreign_share

ENGINE = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(server.getsockname()[1], worker.pid, flush=True)
input()
worker.communicate(b"\\n")
"""


def test_an_engine_is_who_listens_and_its_workers() -> None:
    command = [sys.executable, "-c", ENGINE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        port, worker = (int(word) for word in engine.stdout.readline().split())
        found = engine_pids(f"http://127.0.0.1:{port}")
        engine.communicate("\n")
    assert found is not None
    assert {engine.pid, worker} <= found
    assert os.getpid() not in found


def test_elsewhere_it_cannot_be_told() -> None:
    assert engine_pids("http://gpuhost.example:8000") is None
    assert engine_pids("http://127.0.0.1:1") is None


def test_foreign_processes_by_their_utilisation() -> None:
    own = frozenset({10, 11})
    assert foreign_share({10: 30.0, 11: 30.0}, own) == ((), 0.0)
    assert foreign_share({10: 30.0, 99: 10.0}, own) == ((99,), 0.25)
    assert foreign_share({10: 0.0, 99: 0.0}, own) == ((99,), 0.0)
    assert foreign_share({10: 30.0, 99: None}, own) == ((99,), None)
