"""The load generator's own error, in the form of the peers' table, what a core takes, and the truth cases."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import msgspec
import pytest

from loadgen.selfcheck.checks import (
    RATES,
    Capacity,
    ErrorRow,
    capacity,
    energy_error,
    error_row,
    known_power,
    overload,
    show,
    show_cases,
)
from tests.benchmarks.peers.generators import STREAM, Peer, PeerError, aiperf, core_megabytes, vllm
from tests.compiled import compiled, fast_python, variables, why_not

pytestmark = pytest.mark.bench

VLLM_S, AIPERF_S = 75.0, 110.0
# Of TTFT, ITL and E2E alike, ms: p50, and p99 by the chunks/s asked for.
P50_MS, P99_MS = 0.5, {3_200: 2.0, 9_600: 2.0, 25_600: 5.0}
CHUNKS, REQUESTS = 100_000, 20_000


def test_error_table() -> None:
    rows = [error_row(rate) for rate in RATES]
    chunks, requests = capacity(256), capacity(1)
    sys.stdout.write("\n" + show(rows) + _capacity(chunks, requests) + _targets(rows, chunks, requests))
    # CPU time, not wall time: the machine may be busy with other things.
    assert rows[1].client_us_per_chunk < 100
    assert chunks.chunks > 50_000
    assert requests.requests > 3_000
    fast = _compiled(1)
    if fast is not None:
        fast_chunks = _compiled(256)
        assert fast_chunks is not None
        sys.stdout.write("compiled, on the distribution's Python: " + _capacity(fast_chunks, fast))
        assert fast.requests > 1.2 * requests.requests
    for row in rows:
        # A row that was not driven must say so: the table never passes for what it is not.
        driven = row.chunks_per_second > 0.7 * row.offered_per_second
        assert driven or row.limit is not None
        if row.bound is None:
            assert abs(row.ttft_ms[0]) < P50_MS


def _compiled(tokens: int) -> Capacity | None:
    """The same of the compiled build, in a process of its own; None where it cannot be built."""
    if why_not() is not None:
        return None
    code = (
        "import msgspec, sys; from loadgen.selfcheck.checks import capacity;"
        f"sys.stdout.buffer.write(msgspec.json.encode(capacity({tokens})))"
    )
    ran = subprocess.run(
        [fast_python(), "-c", code],
        env={**os.environ, **variables(compiled())},
        check=True,
        capture_output=True,
    )
    return msgspec.json.decode(ran.stdout, type=Capacity)


def _capacity(chunks: Capacity, requests: Capacity) -> str:
    return (
        f"a core of this client (CPU time): {chunks.chunks:,.0f} chunks/s, {requests.requests:,.0f} req/s;"
        f" reached beside the server: {chunks.reached_chunks:,.0f}, {requests.reached_requests:,.0f}\n"
    )


def _targets(rows: Sequence[ErrorRow], chunks: Capacity, requests: Capacity) -> str:
    missed = [f"{row.offered_per_second:,.0f} chunks/s not driven: {row.bound}" for row in rows if row.bound]
    missed += [
        f"{name} {low:+.2f}/{high:+.2f} ms at {row.offered_per_second:,.0f} chunks/s"
        for row in rows
        for name, (low, high) in (("TTFT", row.ttft_ms), ("ITL", row.itl_ms), ("E2E", row.e2e_ms))
        if abs(low) > P50_MS or abs(high) > P99_MS[round(row.offered_per_second)]
    ]
    missed += [f"{chunks.chunks:,.0f} chunks/s a core"] if chunks.chunks < CHUNKS else []
    missed += [f"{requests.requests:,.0f} req/s a core"] if requests.requests < REQUESTS else []
    return "targets MISSED: " + "; ".join(missed) + "\n" if missed else "targets met\n"


def test_beside_peers() -> None:
    """All against one kind of server, by the nominal TTFT; who cannot be run is named."""
    own = Peer("loadgen", core_megabytes())
    for rate in RATES:
        row = error_row(rate, 3.0, truth=STREAM)
        own.ttft_ms[rate], own.reached[rate] = row.nominal_ms, row.chunks_per_second / STREAM.tokens
    own.requests, own.chunks = capacity(1, 2.0).reached_requests, capacity(256, 2.0).reached_chunks
    peers = [own]
    runs: tuple[tuple[Callable[[Sequence[int], float], Peer], Sequence[int], float], ...] = (
        (vllm, RATES, VLLM_S),
        (aiperf, RATES, AIPERF_S),
    )
    for run, rates, limit_s in runs:
        began = time.monotonic()
        try:
            peers.append(run(rates, limit_s))
        except PeerError as error:
            sys.stdout.write(f"\n{run.__name__}: no figure: {error}")
        assert time.monotonic() - began < limit_s + 15
    sys.stdout.write("\n" + _table(peers))
    measured = [peer for peer in peers[1:] if RATES[-1] in peer.ttft_ms]
    for peer in measured:
        assert own.ttft_ms[RATES[-1]][0] < peer.ttft_ms[RATES[-1]][0]
        assert peer.requests is None or own.requests > peer.requests


def _table(peers: Sequence[Peer]) -> str:
    head = "".join(f"{rate * STREAM.tokens:>24,}/s" for rate in RATES)
    lines = [
        f"TTFT minus nominal, ms, p50/p99 (chunks/s reached)\n{'':18}{head}   max chunks/s   max req/s     MB"
    ]
    for peer in peers:
        cells = "".join(f"{_cell(peer, rate):>26}" for rate in RATES)
        most = "".join("-".rjust(13) if n is None else f"{n:13,.0f}" for n in (peer.chunks, peer.requests))
        lines.append(f"{peer.name:18}{cells}{most}{peer.megabytes:8,.0f}  {peer.why_not}".rstrip())
    return "\n".join([*lines, ""])


def _cell(peer: Peer, rate: int) -> str:
    if rate not in peer.ttft_ms:
        return "-"
    low, high = peer.ttft_ms[rate]
    return f"{low:+.1f}/{high:+.0f} ({peer.reached[rate] * STREAM.tokens:,.0f})"


def test_the_core_install_is_small() -> None:
    found = core_megabytes()
    sys.stdout.write(f"\npip install jouleproxy: {found:.0f} MB without pip, at most 150\n")
    assert found <= 150


def test_both_truth_cases() -> None:
    queue, power = overload(), known_power()
    sys.stdout.write("\n" + show_cases(queue, power))
    assert queue.slo_met is False
    assert queue.ttft_seconds.p95 is not None
    assert queue.ttft_from_sent_seconds.p95 is not None
    # Peers report the wait from sent, 53 ms: the queue in front of the cap is hidden there.
    assert queue.ttft_seconds.p95 > 10 * queue.ttft_from_sent_seconds.p95
    error = energy_error(power)
    assert error is not None
    assert abs(error) < 0.01
