"""A device of known cost for the tests: virtual time, a counter of 20 ms, no NVML and no torch."""

from collections.abc import Callable, Sequence
from typing import Any

from proxy.gpu.composition import Entry, Work
from proxy.gpu.device import Edge, step_joules
from proxy.truth.machine import Machine
from proxy.units import NS_PER_MS, NS_PER_SECOND, ns_from_seconds

UPDATE_NS = 20 * NS_PER_MS


class ModelledDevice:
    """Draws the power of a machine; the counter shows integer millijoules at its updates."""

    simulated = True
    handle: Any = None

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self._now_ns = NS_PER_SECOND
        self._joules = 0.0
        self._edges: list[Edge] = []

    def now_ns(self) -> int:
        return self._now_ns

    def step(self, works: Sequence[Work], run: Callable[[], object]) -> tuple[int, int]:
        run()
        seconds = self.machine.length(
            float(sum(w.context for w in works)), float(sum(w.tokens for w in works))
        )
        return self._draw(step_joules(self.machine, works) / seconds, seconds)

    def idle(self, seconds: float) -> None:
        self._draw(self.machine.idle_watts, seconds)

    def load(self, kind: str) -> tuple[int, int]:
        return self._draw({"idle": 88.0, "copy": 395.0, "matmul": 535.0}[kind], 0.02)

    def edges(self, start_ns: int, end_ns: int) -> list[Edge]:
        return [edge for edge in self._edges if start_ns <= edge.t_ns <= end_ns]

    def _draw(self, watts: float, seconds: float) -> tuple[int, int]:
        start, end = self._now_ns, self._now_ns + ns_from_seconds(seconds)
        for t_ns in range((start // UPDATE_NS + 1) * UPDATE_NS, end + 1, UPDATE_NS):
            joules = self._joules + watts * (t_ns - start) / NS_PER_SECOND
            self._edges.append(Edge(t_ns, float(int(joules * 1e3))))
        self._joules += watts * seconds
        self._now_ns = end
        return start, end


class Counting:
    """A runner that computes nothing and remembers what it was given."""

    def __init__(self, slots: int = 16, length: int = 1024) -> None:
        self.slots, self.length = slots, length
        self.given: list[list[Entry]] = []

    def forward(self, entries: Sequence[Entry]) -> list[int]:
        self.given.append(list(entries))
        return [7] * len(entries)
