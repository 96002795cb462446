"""The search against servers of known knee: real sockets and clocks, 32 slots of 0.68 s."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadgen.cli import main
from loadgen.results.run_directory import load

pytestmark = pytest.mark.bench
_SERVER = ("--ttft", "0.05", "--itl", "0.09", "--tokens", "8", "--slots", "32")


@pytest.mark.parametrize(
    ("options", "truth"), [((), 40.2), (("--concurrency", "1..512"), 33.0)], ids=["rate", "concurrency"]
)
def test_the_knee_is_found_in_ninety_seconds(options: tuple[str, ...], truth: float, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "loadgen.selfcheck.truth_server", *_SERVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            start = time.monotonic()
            nowhere = ("--admin-url", "http://127.0.0.1:1", "--url", url, "--out", str(tmp_path), "--quiet")
            assert main(["sweep", "--search", "--slo", "p95:ttft=200ms", *options, *nowhere]) == 0
            took = time.monotonic() - start
        finally:
            server.terminate()
    knee = load(tmp_path)[0].knee
    assert knee is not None
    assert knee.level is not None
    sys.stdout.write(
        f"\nknee {knee.level:g} ({knee.low:.1f} to {knee.high:.1f}), truth {truth:g},"
        f" {knee.level / truth - 1:+.1%}, {took:.0f} s with start and report\n"
    )
    assert took <= 90
    # 80 s of correlated latencies have a standard error of 3 %.
    assert knee.level == pytest.approx(truth, rel=0.09)
