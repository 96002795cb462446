"""Compute processes on a device that are not its engine's. The only file that imports psutil.

The engine is the process that listens on the backend's port of this host, its ancestors' sessions aside, with
all its descendants (vLLM's core and workers are). Where that cannot be told (another host, another container,
another user's process), no process is called foreign.
"""

from collections.abc import Mapping

import psutil

from proxy.config.origin import origin_of
from proxy.config.settings import is_loopback


def engine_pids(url: str) -> frozenset[int] | None:
    """The processes of the engine behind a backend's URL; None where they cannot be told."""
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
    """Foreign pids, and their share of the SM utilisation (percent by pid); None where it is not told."""
    foreign = tuple(sorted(pid for pid in processes if pid not in own))
    if not foreign:
        return (), 0.0
    known = {pid: share for pid, share in processes.items() if share is not None}
    total = sum(known.values())
    if len(known) < len(processes):
        return foreign, None
    return foreign, sum(known[pid] for pid in foreign) / total if total else 0.0
