"""Tracks: what is known of each request, from its arrival to its final share."""

from dataclasses import dataclass, field

from proxy.core.events import Arrive, End


@dataclass(slots=True)
class Charge:
    """Joules of one request on one device: its share, what was measured while it was alone, and in all."""

    joules: float = 0.0
    alone: float = 0.0
    life: float = 0.0

    def add(self, joules: float, alone: float, life: float) -> None:
        """Add one block's."""
        self.joules += joules
        self.alone += alone
        self.life += life


@dataclass(slots=True)
class Track:
    """One request. Stamps in ns; charges by device."""

    arrive: Arrive
    end: End | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    outputs: int = 0
    charges: dict[str, Charge] = field(default_factory=dict)

    @property
    def start_ns(self) -> int:
        """When the request was sent to its backend."""
        return self.arrive.t_ns

    @property
    def end_ns(self) -> int | None:
        """When the answer ended; None while it runs."""
        return self.end.t_ns if self.end else None

    def output(self, t_ns: int, tokens: int | None) -> None:
        """Take one chunk."""
        if self.first_ns is None:
            self.first_ns = t_ns
        self.last_ns = t_ns
        self.outputs += tokens or 0
