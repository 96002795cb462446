"""The load generator's command, where its clock, its seed and its own limits matter."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.results.records import Record
from loadgen.results.run_directory import load
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.timing import PATIENCE_SECONDS

NOWHERE = "http://127.0.0.1:1"
MEASURED = {
    "dispatched_ns", "sent_ns", "first_ns", "end_ns", "outputs_ns", "counts", "id",
}  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[TruthServer]:
    async with TruthServer(Truth(0.02, 0.002, 5)) as running:
        yield running


async def started(url: str, out: Path, *argv: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen", *argv, "--url", url, "--admin-url", NOWHERE, "--out", str(out),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, said.decode()


def unmeasured(record: Record) -> dict[str, Any]:
    """All of a record that the seed says."""
    return {name: value for name, value in msgspec.structs.asdict(record).items() if name not in MEASURED}


async def test_the_same_seed_gives_the_same_schedule_and_records(server: TruthServer, tmp_path: Path) -> None:
    argv = (
        "--rate", "80", "--arrivals", "gamma:2", "--duration", "1s", "--input", "uniform:1..90",
        "--output", "lognormal:6,0.5", "--warmup", "none",
    )  # fmt: skip
    runs = {}
    for name, seed in (("one", "7"), ("two", "7"), ("other", "0")):
        code, said = await ended(await started(server.url, tmp_path / name, *argv, "--seed", seed))
        assert code in {0, 3}, said  # 3 where this machine was held up: the schedule is the same
        runs[name] = load(tmp_path / name)
    (one, first), (two, second), (_, other) = runs["one"], runs["two"], runs["other"]
    assert len(first) > 40
    assert [unmeasured(r) for r in first] == [unmeasured(r) for r in second]
    assert [r.scheduled_ns for r in first] != [r.scheduled_ns for r in other]
    assert (one.spec, one.seed, one.versions) == (two.spec, two.seed, two.versions)
    for name in ("requests", "failed", "rate", "duration_seconds"):
        assert getattr(one.points[0], name) == getattr(two.points[0], name), name


async def test_a_generator_that_is_held_up_does_not_blame_the_server(
    server: TruthServer, tmp_path: Path
) -> None:
    process = await started(
        server.url, tmp_path, "--rate", "100", "--duration", "2s", "--slo", "1s", "--warmup", "none"
    )
    assert process.stdout is not None
    while b"started" not in await process.stdout.readline():
        pass
    for _ in range(4):  # most requests are late by far more than a twentieth of the objective
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.35)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.05)
    code, said = await ended(process)
    assert code == 3
    assert "GENERATOR-BOUND" in said
    assert "late (p95): this machine cannot sustain the rate" in said
    run, _ = load(tmp_path)
    assert (run.verdict, run.points[0].generator_bound) == ("generator-bound", True)


def test_on_a_terminal_it_shows_a_line_that_moves_and_ends_with_the_table(tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    argv = ("sweep", "--concurrency", "1,2", "--requests", "3", "--simulate", "h100-llama-3.1-8b")
    process = subprocess.Popen(
        [sys.executable, "-m", "loadgen", *argv, "--out", str(tmp_path)],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while piece := _read(screen):
        shown += piece
    os.close(screen)
    assert process.wait(PATIENCE_SECONDS) == 0, shown.decode()
    assert b"in flight" in shown
    assert b"tok/J" in shown
    assert b"DONE: no SLO was given" in shown


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # the last one that wrote has closed it
        return b""
