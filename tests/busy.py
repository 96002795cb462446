"""Run a command while every core is kept busy: ``python -m tests.busy COMMAND ...``.

One burner per available core computes at normal priority for as long as the command runs, so that the command
gets about half of the machine, as beside another build. Burners end with this process, even if it is killed,
and after ``LIMIT_SECONDS`` in any case. The exit status is the command's.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

LIMIT_SECONDS: Final = 3600.0
_SPIN: Final = 100_000  # loop passes between two looks at the clock and at the parent: a few milliseconds


def main(command: Sequence[str]) -> int:
    """Run ``command`` beside the burners; return its exit status."""
    if not command:
        sys.stderr.write("usage: python -m tests.busy COMMAND ...\n")
        return 2
    with burners(cores := len(os.sched_getaffinity(0))):
        sys.stderr.write(f"{cores} burners keep {cores} cores busy while this runs: {' '.join(command)}\n")
        return subprocess.run(command, check=False).returncode


@contextmanager
def burners(count: int, limit_seconds: float = LIMIT_SECONDS) -> Iterator[list[int]]:
    """Start ``count`` processes that compute; stop them after the block. Yields their process ids."""
    fresh = multiprocessing.get_context("spawn")  # no copy of what the caller has open
    running = [
        fresh.Process(target=_burn, args=(os.getpid(), limit_seconds), daemon=True) for _ in range(count)
    ]
    for process in running:
        process.start()
    try:
        yield [process.pid for process in running if process.pid is not None]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _burn(parent: int, limit_seconds: float) -> None:
    """Compute until ``parent`` has ended or the limit is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command; this process is then terminated
    end = time.monotonic() + limit_seconds
    while os.getppid() == parent and time.monotonic() < end:
        for _ in range(_SPIN):
            pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
