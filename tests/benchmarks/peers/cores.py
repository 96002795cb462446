"""Cores: one for the proxy that is measured, the others for all else.

Where a scheduler puts a client, a backend and a proxy, and which of them interrupts which, changes what each
costs by half from one moment to the next.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_kept_free() -> Iterator[int | None]:
    """Keep this process, and all that it starts, off one core, and say which; None: there is but one."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        yield None
        return
    kept = min(cores)
    os.sched_setaffinity(0, cores - {kept})
    try:
        yield kept
    finally:
        os.sched_setaffinity(0, cores)


def move(pids: Iterable[int], core: int | None) -> None:
    """Put every thread of the processes on a core; None: leave them."""
    if core is None:
        return
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
