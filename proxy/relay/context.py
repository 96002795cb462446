# Compiled by mypyc: see setup.py.
"""What all connections of one worker share."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from proxy.config import RelayConfig
from proxy.relay.http.trace_context import Ids
from proxy.relay.meter_link import MeterLink
from proxy.relay.upstreams.balancer import Balancer, Slot
from proxy.relay.upstreams.connections import ConnectionPool
from proxy.relay.upstreams.sticky import AffinityKeys


class TimedConnection(Protocol):
    """A connection whose waits are bounded."""

    def sweep(self, now: int) -> None:
        """End what waited longer than its timeout."""

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""

    def close(self) -> None:
        """Close once all is written."""

    def abort(self) -> None:
        """Close at once."""


@dataclass(slots=True)
class WorkerContext:
    """One worker's state."""

    config: RelayConfig
    link: MeterLink
    balancer: Balancer
    pools: dict[Slot, ConnectionPool]  # of backends that are gone, too, while a request is there
    keys: AffinityKeys | None  # None: nothing is sticky
    clients: set[TimedConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    ids: Ids = field(default_factory=Ids)
    draining: bool = False
