"""Cores: one for the proxy that is measured, the others for all else; or a part of one for each process.

Where a scheduler puts a client, a backend and a proxy, and which of them interrupts which, changes what each
costs by half from one moment to the next.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.peers.start import tree

_PERIOD_US = 10_000


@contextmanager
def one_for(pids: Iterable[int]) -> Iterator[bool]:
    """Pin these processes to one core and all others to the rest; false: there is only one core."""
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


@contextmanager
def a_part_for_each(pids: Iterable[int], part: float) -> Iterator[None]:
    """Each process gets so much of a core and no more, as if there were that many small cores.

    By control groups of the kernel; raises ``OSError`` where they cannot be made.
    """
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_limited(pid, round(part * _PERIOD_US)))
        yield


@contextmanager
def _limited(pid: int, quota_us: int) -> Iterator[None]:
    first = Path("/sys/fs/cgroup/cpu")  # version 1 of control groups; 2 has one tree for all
    parent = first if first.is_dir() else Path("/sys/fs/cgroup")
    group = parent / f"jouleproxy-{pid}"
    group.mkdir()
    try:
        if parent == first:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
        (parent / "cgroup.procs").write_text(str(pid))
    finally:
        group.rmdir()
