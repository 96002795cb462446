"""Find the compute processes on a device that do not belong to its engine. The only file that imports psutil.

The engine is the process that listens on the backend's port on this host, with all its descendants (vLLM's
engine core and workers are descendants of its API server). If the listener cannot be identified (another
host, another container, a process of another user), no process is considered foreign.
"""

from collections.abc import Mapping

import psutil

from proxy.config.origin import origin_of
from proxy.config.settings import is_loopback


def engine_pids(url: str) -> frozenset[int] | None:
    """Return the process ids of the engine behind a backend's URL; None if they cannot be identified."""
    origin = origin_of(url)
    if not is_loopback(origin.host):
        return None
    try:
        if origin.socket is not None:
            found = {c.pid for c in psutil.net_connections("unix") if c.laddr == origin.socket and c.pid}
        else:
            found = {
                c.pid
                for c in psutil.net_connections("tcp")
                if c.status == psutil.CONN_LISTEN and c.laddr.port == origin.port and c.pid is not None
            }
        children = {child.pid for pid in found for child in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:
        return None
    return frozenset(found | children) or None


def foreign_share(
    processes: Mapping[int, float | None], own: frozenset[int]
) -> tuple[tuple[int, ...], float | None]:
    """Return the foreign processes on a device and their share of its use.

    Args:
        processes: SM utilisation in percent by process id; None where the driver does not report it.
        own: Process ids of the engine.

    Returns:
        The foreign process ids, and their share of the SM utilisation, 0 to 1; None if the utilisation of a
        process is not known.
    """
    foreign = tuple(sorted(pid for pid in processes if pid not in own))
    if not foreign:
        return (), 0.0
    known = {pid: share for pid, share in processes.items() if share is not None}
    total = sum(known.values())
    if len(known) < len(processes):
        return foreign, None
    return foreign, sum(known[pid] for pid in foreign) / total if total else 0.0
