# Compiled by mypyc: see setup.py.
"""State that is shared by all connections of one worker process."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from proxy.config import RelayConfig
from proxy.relay.http.trace_context import Ids
from proxy.relay.jobs.table import JobTable
from proxy.relay.meter_link import MeterLink
from proxy.relay.prefixes import PrefixTable
from proxy.relay.upstreams.balancer import Balancer, Slot
from proxy.relay.upstreams.connections import ConnectionPool
from proxy.relay.upstreams.sticky import AffinityKeys


class TimedConnection(Protocol):
    """A connection whose waits are bounded."""

    def sweep(self, now: int) -> None:
        """Enforce the timeouts of this connection; ``now`` is monotonic nanoseconds."""

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""

    def close(self) -> None:
        """Close the connection once all is written."""

    def abort(self) -> None:
        """Close the connection immediately."""


@dataclass(slots=True)
class WorkerContext:
    """State of one worker; created by ``worker.Worker``, passed to every connection."""

    config: RelayConfig
    link: MeterLink
    balancer: Balancer
    pools: dict[Slot, ConnectionPool]  # also of removed backends, while they serve a request
    jobs: JobTable
    keys: AffinityKeys | None  # None: requests have no affinity
    clients: set[TimedConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    ids: Ids = field(default_factory=Ids)
    prefixes: PrefixTable = field(default_factory=PrefixTable)
    draining: bool = False
