"""A device of known power for the self-check, so that the joules of a run can be computed. Pure.

It draws ``busy_watts`` while requests are in service and ``idle_watts`` otherwise. Its account is the
integral, in the format of the proxy's admin port.
"""

import bisect
from dataclasses import dataclass, field

from proxy.schema import DeviceAccount
from proxy.units import NS_PER_SECOND


@dataclass(slots=True)
class KnownDevice:
    """Power as a step function of time; ``changed`` must be called with ascending stamps."""

    idle_watts: float = 100.0
    busy_watts: float = 250.0
    _edges_ns: list[int] = field(default_factory=list)

    def changed(self, t_ns: int, *, busy: bool) -> None:
        """Record that service began or ended at ``t_ns``."""
        if busy != bool(len(self._edges_ns) % 2):
            self._edges_ns.append(t_ns)

    def account(self, start_ns: int, end_ns: int) -> DeviceAccount:
        """Return the account of [start_ns, end_ns); all energy while busy is attributed to requests."""
        busy_s = (self._busy_ns(end_ns) - self._busy_ns(start_ns)) / NS_PER_SECOND
        seconds = (end_ns - start_ns) / NS_PER_SECOND
        requests = busy_s * self.busy_watts
        idle = (seconds - busy_s) * self.idle_watts
        return DeviceAccount(
            device="truth-0",
            source="simulated (known power)",
            measured_joules=requests + idle,
            requests_joules=requests,
            idle_joules=idle,
            start_ns=start_ns,
            end_ns=end_ns,
        )

    def _busy_ns(self, t_ns: int) -> int:
        """Return the busy time before ``t_ns``, nanoseconds."""
        edges = self._edges_ns[: bisect.bisect_right(self._edges_ns, t_ns)]
        if len(edges) % 2:
            edges.append(t_ns)
        return sum(edges[1::2]) - sum(edges[::2])
