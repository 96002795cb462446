"""Cores: one for the proxy that is measured, the others for all else.

Where a scheduler puts a client, a backend and a proxy, and which of them interrupts which, changes what each
costs by half from one moment to the next.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.peers.start import tree


@contextmanager
def one_for(pids: Iterable[int]) -> Iterator[bool]:
    """These processes on one core, this one and all others it started off it; false: there is but one."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        yield False
        return
    one = {min(cores)}
    everyone = tree(os.getpid())
    _move(everyone, cores - one)
    _move(pids, one)
    try:
        yield True
    finally:
        _move(everyone, cores)


def _move(pids: Iterable[int], cores: set[int]) -> None:
    """Put every thread of the processes there."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
