"""``loadgen selfcheck``: what this client can be believed for on this machine, against known truth.

The server runs in a process of its own. What is shown as an error is this client's, the server's and
the machine's together: an upper bound of the client's own.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from loadgen.cli import main
from loadgen.metrics import gaps
from loadgen.records import Point, Record
from loadgen.rundir import load
from loadgen.truthserver import Truth

_STREAM = Truth(ttft_s=0.05, itl_s=0.01, tokens=64)
_QUEUE = Truth(ttft_s=0.05, itl_s=0.09, tokens=8, slots=32)  # 0.68 s of service: 47 req/s
_NO_PROXY = "http://127.0.0.1:1"
RATES = (50, 150, 400)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Errors at one load, milliseconds: measured minus truth, at the 50th and 99th percentile."""

    chunks_per_second: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    cpu_share: float
    generator_bound: bool


def drive(truth: Truth, *options: str) -> tuple[Point, list[Record]]:
    """One point of the command itself against a fresh server; raises ``RuntimeError`` if it cannot."""
    argv = [sys.executable, "-m", "loadgen.truthserver", "--ttft", str(truth.ttft_s)]
    argv += ["--itl", str(truth.itl_s), "--tokens", str(truth.tokens)]
    argv += ["--slots", str(truth.slots)] if truth.slots else []
    with (
        TemporaryDirectory() as out,
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            common = ["--url", url, "--admin-url", _NO_PROXY, "--out", out, "--quiet"]
            if main([*options, *common]) == 2:
                raise RuntimeError("the self-check cannot start")
            run, records = load(Path(out))
        finally:
            server.terminate()
    return run.points[0], records


def error_row(rate: int, seconds: float = 5.0) -> ErrorRow:
    """The error at ``rate`` answers a second of 64 chunks each, 10 ms apart."""
    point, records = drive(
        _STREAM, "--rate", str(rate), "--arrivals", "constant", "--duration", f"{seconds:g}s"
    )
    between = np.array([gap for record in records if record.ok for gap in gaps(record)])
    itl = (np.percentile(between, [50, 99]) - _STREAM.itl_s) * 1e3
    seen = np.array([
        (r.first_ns - r.sent_ns) / 1e9 for r in records if r.ok and r.first_ns and r.sent_ns
    ])  # fmt: skip
    ttft = (np.percentile(seen, [50, 99]) - _STREAM.ttft_s) * 1e3
    return ErrorRow(
        chunks_per_second=point.output_tokens_per_second or 0.0,
        ttft_p50_ms=float(ttft[0]),
        ttft_p99_ms=float(ttft[1]),
        itl_p50_ms=float(itl[0]),
        itl_p99_ms=float(itl[1]),
        cpu_share=point.cpu_share or 0.0,
        generator_bound=point.generator_bound,
    )


def overload(seconds: float = 20.0) -> Point:
    """60 req/s offered to a server of 47 through a cap of 32: the wait at the client must show."""
    options = ["--rate", "60", "--max-in-flight", "32", "--duration", f"{seconds:g}s"]
    return drive(_QUEUE, *options, "--slo", "p95:ttft=200ms", "--warmup", "none")[0]


def show(rows: list[ErrorRow], queue: Point) -> str:
    """The table and the case, as text."""
    lines = ["  chunks/s   TTFT error p50   p99   ITL error p50   p99    CPU"]
    lines += [
        f"{r.chunks_per_second:10,.0f} {r.ttft_p50_ms:+13.2f} ms {r.ttft_p99_ms:+6.2f}"
        f" {r.itl_p50_ms:+12.2f} ms {r.itl_p99_ms:+6.2f} {r.cpu_share:6.0%}"
        + ("  generator-bound: do not use" if r.generator_bound else "")
        for r in rows
    ]
    return "\n".join([*lines, "", *_queue_lines(queue), ""])


def _queue_lines(point: Point) -> list[str]:
    def p95(found: Any) -> str:
        return "-" if found.p95 is None else f"{found.p95 * 1e3:,.0f} ms"

    good = point.goodput_per_second or 0.0
    return [
        "60 req/s offered to a capacity of 47 with at most 32 in flight:",
        f"  TTFT p95 from scheduled {p95(point.ttft_seconds)},"
        f" from sent {p95(point.ttft_from_sent_seconds)} (what hides the queue);"
        f" goodput {good:.1f} of 60 req/s",
    ]


def selfcheck() -> int:
    """The command: 0 if the case shows its queue and the lightest load was driven, else 1."""
    rows = [error_row(rate) for rate in RATES]
    queue = overload()
    sys.stdout.write(show(rows, queue))
    right = queue.slo_met is False and not rows[0].generator_bound
    sys.stdout.write("self-check passed\n" if right else "self-check FAILED\n")
    return 0 if right else 1
