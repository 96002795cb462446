"""The command as a person meets it, against the truth server and a fake admin port."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from loadgen.cli import main
from loadgen.results.run_directory import load
from loadgen.selfcheck.truth_server import Truth, TruthServer
from tests.fakes.admin_port import WATTS, FakeAdmin
from tests.timing import PATIENCE_SECONDS

NOWHERE = "http://127.0.0.1:1"
UNHURRIED = ("--slo", "60s")  # the generator is its bottleneck only where it is late by a twentieth of that


@pytest.fixture
async def server() -> AsyncIterator[TruthServer]:
    async with TruthServer(Truth(0.02, 0.002, 5)) as running:
        yield running


async def loadgen(*argv: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.cli", *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode or 0, out.decode(), err.decode()


async def test_open_loop_with_energy(server: TruthServer, tmp_path: Path) -> None:
    async with FakeAdmin(joules_each=4.0) as admin:
        code, out, err = await loadgen(
            "--rate", "60", "--duration", "1.5s", "--slo", "p90:ttft=60s", "--url", server.url,
            "--admin-url", admin.url, "--out", str(tmp_path), "--warmup", "none",
        )  # fmt: skip
    assert (code, err) == (0, "")
    assert "PASS" in out
    assert "SIMULATED" in out
    run, records = load(tmp_path)
    (point,) = run.points
    assert point.watts == pytest.approx(WATTS, rel=1e-6)
    assert point.joules == pytest.approx(WATTS * 1.5, rel=1e-6)
    assert sum(v or 0 for v in point.parts_joules.values()) == pytest.approx(point.joules)
    assert point.slo_met
    assert {r.id for r in records} == set(admin.asked)
    assert all(r.joules == 4.0 and r.output_tokens == 5 for r in records)
    assert all(r.sent_ns is not None and r.sent_ns >= r.scheduled_ns for r in records)


async def test_sweep_json_and_rebuilding_to_the_same_bytes(server: TruthServer, tmp_path: Path) -> None:
    code, out, err = await loadgen(
        "sweep", "--concurrency", "1,3", "--duration", "0.5s", "--slo", "p50:e2e=60s", "--json",
        "--url", server.url, "--admin-url", NOWHERE, "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0
    assert "energy not measured" in err
    shown = msgspec.json.decode(out)
    assert [p["concurrency"] for p in shown["points"]] == [1, 3]
    assert shown["points"][0]["watts"] is None
    assert shown["points"][1]["max_in_flight"] == 3
    names = ("report.html", "curve.svg", "curve.png")
    before = [(tmp_path / name).read_bytes() for name in names]
    assert main(["report", str(tmp_path)]) == 0
    assert [(tmp_path / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    "redirection", ["| head -1", ">/dev/full", "<&-", ">&-", "2>&-", "--workers 2 <&- >&-"]
)
async def test_the_run_is_saved_after_the_terminal_is_closed(
    server: TruthServer, tmp_path: Path, redirection: str
) -> None:
    argv = (
        sys.executable, "-m", "loadgen.cli", "--concurrency", "2", "--requests", "10", *UNHURRIED,
        "--url", server.url, "--admin-url", NOWHERE, "--out", str(tmp_path),
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}', "bash", *argv,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
    run, records = load(tmp_path)
    assert (run.verdict, len(records)) == ("pass", 10)
    assert (tmp_path / "report.html").exists()


async def test_the_output_of_a_command_without_a_run_must_be_written(
    server: TruthServer, tmp_path: Path
) -> None:
    common = (
        "--concurrency",
        "1",
        "--requests",
        "2",
        *UNHURRIED,
        "--url",
        server.url,
        "--admin-url",
        NOWHERE,
    )
    assert (await loadgen(*common, "--out", str(tmp_path)))[0] == 0
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", '"$@" >/dev/full', "bash", sys.executable, "-m", "loadgen.cli", "compare",
        str(tmp_path), str(tmp_path), stderr=subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, err) == (2, b"loadgen: standard output: No space left on device\n")


async def test_a_run_directory_is_replaced_only_by_force(server: TruthServer, tmp_path: Path) -> None:
    argv = (
        "--concurrency", "1", "--requests", "2", *UNHURRIED,
        "--url", server.url, "--admin-url", NOWHERE, "--quiet", "--out", str(tmp_path),
    )  # fmt: skip
    assert (await loadgen(*argv))[0] == 0
    first = load(tmp_path)[0].run_id
    code, _, err = await loadgen(*argv)
    assert code == 2
    assert "contains a run; give another directory, or --force" in err
    assert load(tmp_path)[0].run_id == first
    assert (await loadgen(*argv, "--force"))[0] == 0
    assert load(tmp_path)[0].run_id != first


async def test_a_file_that_cannot_be_saved_is_named_and_the_verdict_kept(
    server: TruthServer, tmp_path: Path
) -> None:
    (tmp_path / "requests.jsonl.zst.part").mkdir()  # in the way of the file
    code, out, err = await loadgen(
        "--concurrency", "2", "--requests", "20", "--slo", "1ms", "--url", server.url,
        "--admin-url", NOWHERE, "--out", str(tmp_path),
    )  # fmt: skip
    assert code in {1, 3}  # 3: a busy machine held the generator up
    assert "FAIL" in out or "GENERATOR-BOUND" in out
    assert "the results are not saved" in err
    assert "requests.jsonl.zst" in err


async def test_a_missed_slo_is_exit_1(server: TruthServer, tmp_path: Path) -> None:
    code, out, _ = await loadgen(
        "--concurrency", "2", "--requests", "20", "--slo", "1ms", "--url", server.url,
        "--admin-url", NOWHERE, "--out", str(tmp_path),
    )  # fmt: skip
    if code == 3:
        pytest.skip(f"not judged, this machine held the generator up: {out}")
    assert code == 1
    assert "FAIL" in out


async def test_ctrl_c_saves_the_points_so_far(server: TruthServer, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.cli", "--rate", "50", "--duration", "50s", "--url",
        server.url, "--admin-url", NOWHERE, "--out", str(tmp_path), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    while b"started" not in await process.stdout.readline():
        pass
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(server._engine.served) < 10:  # noqa: ASYNC110 - requests of another process
            await asyncio.sleep(0.02)
    process.send_signal(2)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 130
    assert b"INTERRUPTED" in out
    run, records = load(tmp_path)
    assert run.verdict == "interrupted"
    assert len(records) > 3


async def test_an_interrupted_sweep_is_resumed(server: TruthServer, tmp_path: Path) -> None:
    argv = ("sweep", "--concurrency", "1,2,3", "--duration", "0.6s", *UNHURRIED, "--url", server.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.cli", *argv, "--admin-url", NOWHERE, "--out", str(tmp_path),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    while b"2 at once: started" not in await process.stdout.readline():
        pass
    process.send_signal(15)
    await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 130
    before, _ = load(tmp_path)
    code, _, err = await loadgen("sweep", "--resume", str(tmp_path))
    assert (code, err) == (0, "")
    run, records = load(tmp_path)
    assert [p.concurrency for p in run.points] == [1, 2, 3]
    assert run.points[0] == before.points[0]
    assert run.run_id == before.run_id
    assert {r.point for r in records} == {0, 1, 2}
    code, _, err = await loadgen("sweep", "--resume", str(tmp_path))
    assert code == 2
    assert "interrupted" in err


async def test_a_model_that_is_neither_listed_nor_served_is_diagnosed(server: TruthServer) -> None:
    code, _, err = await loadgen("--rate", "1", "--url", server.url, "--model", "nope")
    assert (code, err.count("\n")) == (2, 1)
    assert "no model 'nope'? It lists truth" in err


async def test_skipped_rows_are_reported_even_with_quiet(server: TruthServer, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a"}\n{"prompt": {}}\n')
    argv = (
        "--concurrency", "1", "--requests", "2", "--url", server.url, "--admin-url", NOWHERE,
        "--dataset", str(data), "--quiet", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    code, out, err = await loadgen(*argv)
    assert (code, out) == (0, "")
    assert err.startswith(f"loadgen: note: --dataset {data}: 1 of 2 rows left out: line 2: ")
    assert load(tmp_path / "run")[0].notes[0] in err
    code, _, err = await loadgen(*argv, "--strict", "--force")
    assert (code, err.count("\n")) == (2, 1)
    assert "line 2" in err


async def test_a_wrong_path_is_diagnosed(server: TruthServer) -> None:
    code, _, err = await loadgen("--rate", "1", "--url", server.url, "--endpoint", "embeddings")
    assert code == 2
    assert "HTTP 404" in err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("", "--rate"),
        ("--rate 1 --concurrency 1", "--rate"),
        ("--rate x", "1..64"),
        ("--rate 1..4", "sweep"),
        ("--rate 1 --slo 20", "--slo '20'"),
        ("--rate 1 --slo=", "--slo: is empty"),
        ("--rate 1 --slo ,", "--slo ''"),
        ("--rate 1 --slo ttft=nan", "--slo 'ttft=nan'"),
        ("--rate 1 --model=", "--model: is empty"),
        ("--rate 1 --out=", "--out: is empty"),
        ("--rate 1 --dataset=", "--dataset: is empty"),
        ("--rate=", "--rate: is empty"),
        ("--rate nan", "--rate 'nan'"),
        ("--rate 1e400", "--rate '1e400'"),
        ("--rate 1e9", "--rate '1e9': must be from 0.000001 to 1,000,000"),
        ("--rate 1e-300", "--rate '1e-300': must be from"),
        ("--concurrency 999999999", "--concurrency '999999999': must be from 1 to 100,000"),
        ("--concurrency 1e400", "--concurrency '1e400'"),
        ("sweep --concurrency 8..2", "write 2..8"),
        ("--rate 1 --devices ,", "--devices ','"),
        ("--rate 1 --arrivals gamma:1e300", "--arrivals 'gamma:1e300'"),
        ("--rate 1 --arrivals gamma:1e-300", "--arrivals 'gamma:1e-300'"),
        ("--rate 1 --arrivals ramp:0..1e-300", "--arrivals 'ramp:0..1e-300'"),
        ("--rate 1 --arrivals ramp:1e300..2e300", "--arrivals 'ramp:1e300..2e300'"),
        ("--rate 1 --arrivals sine:0.5,1e-300", "--arrivals 'sine:0.5,1e-300'"),
        ("--rate 1 --arrivals sine:0.5,1e300", "--arrivals 'sine:0.5,1e300'"),
        ("--rate 1 --workers 100000", "--workers 100000: must be from 1 to"),
        ("--rate 1 --picture 1\u00b2x1", "--picture '1\u00b2x1'"),
        ("--rate 1 --request-timeout 0s", "--request-timeout"),
        ("--rate 1 --request-timeout 5", "--request-timeout '5'"),
        ("--rate 1 --duration 3", "10s"),
        ("--rate 1 --url foo", "http://"),
        ("--rate 1 --url http://127.0.0.1:1", "start it"),
        ("--rate 1 --warmup x", "mlenergy"),
        ("--rate 1 --endpoint x", "chat"),
        ("--rate 1 --input x", "lognormal"),
        ("--rate 1 --prefix-share 2", "0 to 1"),
        ("--rate 1 --seed -1", "0 or more"),
        ("--rate 1 --requests 0", "at least 1"),
        ("--rate 1 --header x", "NAME=VALUE"),
        ("--rate 1 --no-stream --slo ttft=1s", "e2e"),
        ("--rate 1 --arrivals trace:/nowhere.csv --url http://127.0.0.1:1", "trace"),
        ("--rate 1 --frob", "--frob"),
        ("frob", "sweep"),
        ("sweep --search", "SLO"),
        ("sweep --search --slo 1s --arrivals sine:0.5,20", "poisson"),
        ("sweep --search --slo 1s --requests 5", "--budget"),
        ("sweep --search --slo 1s --budget 1s", "at least"),
        ("report /nowhere", "run directory"),
        (f"--rate 1 --url http://127.0.0.1:1 --out {__file__}/x", "Not a directory"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    argv: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(argv.split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert says in err


def test_slow_modules_are_not_imported_before_the_first_request() -> None:
    script = "import sys; from loadgen.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script, "run", "--url", NOWHERE, "--rate", "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"no server at {NOWHERE}" in found.stderr
    loaded = {name.split(".")[0] for name in found.stdout.split()}
    late = {
        "numpy",
        "matplotlib",
        "aiohttp",
        "httpx",
        "opentelemetry",
        "backports",
        "pynvml",
        "psutil",
        "PIL",
    }
    assert not loaded & late
