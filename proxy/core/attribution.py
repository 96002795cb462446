"""Attribution: the one object that turns events into joules per request.

Contract for the shell: create one :class:`Attributor`, ``feed`` it events in order of ``t_ns``, take
finished shares with ``drain``. Nothing else drives it: no clock, no thread. The same events give the same
joules, bit for bit, live and offline.
"""

from collections.abc import Sequence

import msgspec

from proxy.core.events import Device, Event
from proxy.schema import DeviceAccount, ModelTerms, Parts

POLICIES = ("steps", "tokens", "overlap")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The joules of one request, as the core knows them (fields as in ``RequestEnergy``)."""

    request: str
    joules: float | None
    joules_low: float | None
    joules_high: float | None
    parts: Parts | None
    policy: str
    evidence: str
    devices: dict[str, float]
    unknown: str | None
    final: bool


class Attributor:
    """Feed/drain: events in order in, shares of finished requests out."""

    def __init__(
        self, policy: str = "steps", devices: Sequence[Device] = (), *, settle_s: float = 30.0
    ) -> None:
        """``settle_s``: how long a window may wait for its requests' usage before it is closed."""

    def feed(self, event: Event) -> None:
        """Take one event; raises ``ValueError`` for a stamp before the last one."""

    def drain(self) -> list[Share]:
        """Shares that became final since the last call, in order of becoming so."""

    def provisional(self, request: str, t_ns: int) -> Share | None:
        """What the request has cost by ``t_ns``, from closed windows and the model; None: unknown id."""

    def flush(self) -> None:
        """Close what can be closed: no more events will come."""

    def accounts(self) -> list[DeviceAccount]:
        """The account of each device since its first sample."""

    def window(self, start_ns: int, end_ns: int) -> list[DeviceAccount]:
        """Device accounts over [start_ns, end_ns), edges interpolated."""

    def terms(self) -> list[ModelTerms]:
        """The fitted terms of each energy group."""
