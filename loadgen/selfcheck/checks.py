"""``loadgen selfcheck``: the accuracy of the load generator on this machine, against a known server.

The server runs in a separate process and records when each request arrived and each token was sent. Two
errors are reported: the client's own error, relative to the server's records, and the total error relative
to the nominal latency (client, server and other load of the machine together), which is the usual measure
of load generators.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from loadgen.client.http_client import Client, Target
from loadgen.config.options import USAGE
from loadgen.drive.attack import Attack, Outcome
from loadgen.drive.event_loop import run_event_loop
from loadgen.drive.garbage_collection import no_collections
from loadgen.drive.pacer import ClosedLoop, OpenLoop
from loadgen.measure.summary import Measured, generator_bound
from loadgen.measure.window import Window
from loadgen.results.records import Point, Record
from loadgen.results.run_directory import load
from loadgen.run_command import run_command
from loadgen.selfcheck.known_power import KnownDevice
from loadgen.selfcheck.truth_server import MODEL, Served, ServerLog, Truth
from loadgen.workload.arrivals import Renewal
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import Workload
from proxy.units import NS_PER_SECOND, ns_from_seconds

_STREAM = Truth(ttft_s=0.05, itl_s=0.01, tokens=64)
_QUEUE = Truth(ttft_s=0.05, itl_s=0.09, tokens=8, slots=32)  # 0.68 s of service: 47 req/s
_NO_PROXY = "http://127.0.0.1:1"
_SERVER_LATE_MS = 2.0
_SHARED = 0.01
_CONCURRENCY = 64
_ROW_S, _OVERLOAD_S = 4.0, 17.0  # a minute for everything, on a slow machine too
RATES = (50, 150, 400)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Errors at one load in milliseconds, at the 50th and 99th percentile.

    ``nominal``: measured minus nominal TTFT, including the lateness of the server. ``ttft``, ``itl`` and
    ``e2e``: measured minus the server's record, which is the error of this client. ``server``: the lateness
    of the server's writes. ``shared``: the share of chunks that were read together with others and have one
    stamp.
    """

    chunks_per_second: float
    offered_per_second: float
    nominal_ms: tuple[float, float]
    ttft_ms: tuple[float, float]
    itl_ms: tuple[float, float]
    e2e_ms: tuple[float, float]
    server_ms: tuple[float, float]
    shared: float
    client_us_per_chunk: float
    server_us_per_chunk: float
    bound: str | None

    @property
    def limit(self) -> str | None:
        """Which side could not sustain the load; None if both did."""
        if self.bound:
            return "generator-bound: do not use"
        return "the truth server was late" if self.server_ms[1] > _SERVER_LATE_MS else None


@contextlib.contextmanager
def truth_server(truth: Truth) -> Iterator[str]:
    """Run a truth server in a separate process; yield its URL."""
    argv = [sys.executable, "-m", "loadgen.selfcheck.truth_server", "--ttft", str(truth.ttft_s)]
    argv += ["--itl", str(truth.itl_s), "--tokens", str(truth.tokens)]
    argv += ["--slots", str(truth.slots)] if truth.slots else []
    argv += [] if truth.role_first else ["--role-late"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.terminate()


def drive(truth: Truth, *options: str, energy: bool = False) -> tuple[Point, list[Record]]:
    """Run ``loadgen run`` against a new server; return its point and records.

    Raises ``RuntimeError`` if the run cannot start.
    """
    with TemporaryDirectory() as out, truth_server(truth) as url:
        admin = url if energy else _NO_PROXY
        argv = [*options, "--url", url, "--admin-url", admin, "--out", out, "--quiet"]
        if run_command("run", argv) == USAGE:
            raise RuntimeError("the self-check cannot start")
        run, records = load(Path(out))
    return run.points[0], records


def error_row(rate: int, seconds: float = 5.0, truth: Truth = _STREAM) -> ErrorRow:
    """Measure the errors at ``rate`` responses per second (Poisson) of 64 chunks each, 10 ms apart."""
    with truth_server(truth) as url, no_collections():
        outcome, log = run_event_loop(_attack(url, rate, seconds))
    return _row(rate, outcome, log)


async def _attack(url: str, rate: int, seconds: float) -> tuple[Outcome, ServerLog]:
    client = Client(Target(url))
    workload = Workload("chat", "truth", Lengths(Fixed(8), Fixed(_STREAM.tokens)))
    pacer = OpenLoop(Renewal(rate, 1.0, 0), ns_from_seconds(seconds))
    try:
        await client.warm(2 * rate)
        outcome = await Attack(client, workload, pacer, 0, "truth").run()
        log = msgspec.json.decode((await client.fetch("GET", "/truth"))[1], type=ServerLog)
    finally:
        await client.close()
    return outcome, log


@dataclass(frozen=True, slots=True)
class Capacity:
    """Throughput of the client per second: the limit of one core, from its CPU time, and the rate reached."""

    requests: float
    chunks: float
    reached_requests: float
    reached_chunks: float


def capacity(tokens: int, seconds: float = 3.0) -> Capacity:
    """Measure throughput with 64 requests in flight; the server sends all ``tokens`` at once."""
    with truth_server(Truth(0.0, 0.0, tokens)) as url, no_collections():
        outcome: Outcome = run_event_loop(_flood(url, tokens, seconds))
    requests = len([r for r in outcome.records if r.ok])
    chunks = sum(sum(r.counts) for r in outcome.records)
    duration = outcome.end_ns / NS_PER_SECOND
    core = outcome.cpu_share * duration
    return Capacity(requests / core, chunks / core, requests / duration, chunks / duration)


async def _flood(url: str, tokens: int, seconds: float) -> Outcome:
    client = Client(Target(url))
    workload = Workload("chat", MODEL, Lengths(Fixed(8), Fixed(tokens)))
    try:
        await client.warm(_CONCURRENCY)
        pacer = ClosedLoop(_CONCURRENCY, ns_from_seconds(seconds))
        return await Attack(client, workload, pacer, 0, "flood").run()
    finally:
        await client.close()


def _row(rate: int, outcome: Outcome, log: ServerLog) -> ErrorRow:
    good = [r for r in outcome.records if r.ok and r.id in log.served]
    chunks = sum(sum(r.counts) for r in good)
    complete = Window(0, outcome.sending_end_ns)
    measured = Measured(
        None, rate, outcome.records, complete, lags_ns=outcome.lags_ns, cpu_share=outcome.cpu_share
    )
    errors = [errors_ns(r, log.served[r.id]) for r in good]
    ttft_ns = ns_from_seconds(_STREAM.ttft_s)
    return ErrorRow(
        chunks_per_second=sum(
            count for r in good for t, count in zip(r.outputs_ns, r.counts, strict=True) if complete.holds(t)
        )
        / complete.seconds,
        offered_per_second=float(rate * _STREAM.tokens),
        nominal_ms=_ends([(r.first_ns or 0) - (r.sent_ns or 0) - ttft_ns for r in good]),
        ttft_ms=_ends([ttft for ttft, _, _ in errors]),
        itl_ms=_ends([gap for _, gaps, _ in errors for gap in gaps]),
        e2e_ms=_ends([e2e for _, _, e2e in errors]),
        server_ms=_ends(log.late_ns),
        shared=sum(n for r in good for n in r.counts if n > 1) / chunks,
        client_us_per_chunk=outcome.cpu_share * outcome.end_ns / 1e3 / chunks,
        server_us_per_chunk=log.cpu_seconds * 1e6 / chunks,
        bound=generator_bound(measured, outcome.records, ()),
    )


def errors_ns(record: Record, served: Served) -> tuple[int, list[int], int]:
    """Return measured minus true TTFT, gaps between reads, and E2E, in nanoseconds.

    Both processes use the monotonic clock of this machine. A read of several tokens has the stamp of the
    last one, so it is compared with that.
    """
    arrived, written = served.arrived_ns, served.written_ns
    sent = record.sent_ns or 0
    true = [written[at - 1] for at in accumulate(record.counts)]
    seen = record.outputs_ns
    gaps = [b - a - (d - c) for (a, b), (c, d) in zip(pairwise(seen), pairwise(true), strict=True)]
    ttft = (seen[0] - sent) - (true[0] - arrived)
    return ttft, gaps, (record.end_ns or 0) - sent - (written[-1] - arrived)


def _ends(values_ns: list[Any]) -> tuple[float, float]:
    low, high = np.percentile(np.array(values_ns, np.float64) / 1e6, [50, 99])
    return float(low), float(high)


def overload(seconds: float = 20.0) -> Point:
    """Offer 60 req/s to a server with a capacity of 47, with a cap of 32 in flight.

    The wait in the client must be part of the latency. The queue grows during the run, so its percentiles
    depend on ``seconds``.
    """
    options = ["--rate", "60", "--max-in-flight", "32", "--duration", f"{seconds:g}s"]
    return drive(_QUEUE, *options, "--slo", "p95:ttft=200ms", "--warmup", "none")[0]


def known_power(seconds: float = 3.0) -> Point:
    """Run for ``seconds`` on a device of known power, which is busy until after the end."""
    options = ["--concurrency", "4", "--duration", f"{seconds:g}s", "--warmup", "none"]
    return drive(_QUEUE, *options, energy=True)[0]


def energy_error(point: Point) -> float | None:
    """Return the relative error of the joules.

    The device is busy during the whole window. None if unknown.
    """
    if point.joules is None:
        return None
    truth = KnownDevice().busy_watts * point.duration_seconds
    return point.joules / truth - 1


def show(rows: list[ErrorRow]) -> str:
    """Format the table of errors."""
    lines = [
        "this client's errors in ms, p50/p99: relative to the server's records, and (nominal) to its target",
        f" chunks/s{'TTFT':>15}{'ITL':>15}{'E2E':>15}{'nominal':>15}{'server late':>15}  CPU us/chunk",
    ]
    for row in rows:
        pairs = (row.ttft_ms, row.itl_ms, row.e2e_ms, row.nominal_ms, row.server_ms)
        cells = "".join(f"{f'{low:+.2f}/{high:+.2f}':>15}" for low, high in pairs)
        cpu = f"{row.client_us_per_chunk:9.0f} +{row.server_us_per_chunk:3.0f}"
        shared = f"  {row.shared:.0%} of chunks share a read" if row.shared >= _SHARED else ""
        limit = f"  {row.limit}" if row.limit else ""
        lines.append(f"{row.chunks_per_second:9,.0f}{cells}{cpu}{shared}{limit}")
    return "\n".join([*lines, ""])


def show_cases(queue: Point, power: Point) -> str:
    """Format both cases."""

    def p95(found: Any) -> str:
        return "-" if found.p95 is None else f"{found.p95 * 1e3:,.0f} ms"

    known, error = KnownDevice(), energy_error(power)
    joules = "energy not measured" if error is None else f"{power.joules:.1f} J, {error:+.2%}"
    return (
        f"{queue.duration_seconds:.0f} s of 60 req/s offered to a capacity of 47 with at most 32 in flight"
        " (the queue, and so its wait, grows with the run):\n"
        f"  TTFT p95 from scheduled {p95(queue.ttft_seconds)},"
        f" from sent {p95(queue.ttft_from_sent_seconds)} (what hides the queue);"
        f" goodput {queue.goodput_per_second or 0:.1f} of 60 req/s\n"
        f"{power.duration_seconds:g} s on a device of {known.busy_watts:g} W busy, {known.idle_watts:g} W"
        f" idle (known):\n  {joules}; idle {power.idle_watts or 0:.1f} W\n"
    )


def trusted_range(rows: list[ErrorRow]) -> str:
    """Summarise the table in one line."""
    good = [row for row in rows if not row.bound]
    if not good:
        return "this machine is too busy for a measurement: no load was reached\n"
    best = good[-1]
    return (
        f"this client is accurate on this machine up to {best.chunks_per_second:,.0f} chunks/s:"
        f" its own error of TTFT is {best.ttft_ms[0]:+.2f} ms (p50), {best.ttft_ms[1]:+.2f} ms (p99)\n"
    )


def selfcheck() -> int:
    """Return 0 if both cases are correct, 1 if not, 3 if the lightest load was not reached."""
    rows = [error_row(rate, _ROW_S) for rate in RATES]
    sys.stdout.write(show(rows) + trusted_range(rows))
    sys.stdout.flush()
    queue, power = overload(_OVERLOAD_S), known_power()
    sys.stdout.write(show_cases(queue, power))
    error = energy_error(power)
    hidden = (queue.ttft_seconds.p95 or 0) < 1.0 or queue.slo_met is not False
    right = not hidden and error is not None and abs(error) < 0.01 and power.idle_watts is not None
    if not right:
        sys.stdout.write("self-check FAILED\n")
        return 1
    if rows[0].bound:
        sys.stdout.write(f"GENERATOR-BOUND at the lightest load: {rows[0].bound}\n")
        return 3
    timed = any(not row.bound for row in rows)
    sys.stdout.write(
        "self-check passed\n"
        if timed
        else "both cases are correct; latencies were not checked: the machine is too busy\n"
    )
    return 0
