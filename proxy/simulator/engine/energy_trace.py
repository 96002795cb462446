"""Timeline of a run in virtual time: the start and end of each step, and the cumulative energy."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from proxy.simulator.engine.batching import Totals
from proxy.simulator.engine.step_costs import Floats

PARTS = ("static", "prefill", "decode", "context", "idle")


@dataclass(slots=True)
class Trace:
    """Times in seconds since 0; joules cumulative, of all devices together.

    ``starts`` and ``ends`` have an item for each step, ``times`` and ``energy`` one for each change of power,
    ``parts`` one for each plan: within a plan of many steps the proportions of the parts change little, and
    their total is exact.
    """

    now: float = 0.0
    total: float = 0.0
    idle: float = 0.0
    starts: "array[float]" = field(default_factory=lambda: array("d"))
    ends: "array[float]" = field(default_factory=lambda: array("d"))
    times: "array[float]" = field(default_factory=lambda: array("d", [0.0]))
    energy: "array[float]" = field(default_factory=lambda: array("d", [0.0]))
    _plan_times: "array[float]" = field(default_factory=lambda: array("d", [0.0]))
    _parts: "array[float]" = field(default_factory=lambda: array("d", [0.0] * len(PARTS)))

    def rest(self, until: float, watts: float, totals: Totals) -> None:
        """Record idle time until ``until`` (seconds) at ``watts``."""
        joules = watts * (until - self.now)
        self.now, self.idle, self.total = until, self.idle + joules, self.total + joules
        self._mark(totals)

    def ran(
        self, seconds: Floats | tuple[float, ...], joules: Floats | tuple[float, ...], totals: Totals
    ) -> None:
        """Record steps with these durations and joules; ``totals`` already contains them."""
        if len(seconds) == 1:
            self.starts.append(self.now)
            self.now, self.total = self.now + seconds[0], self.total + joules[0]
            self.ends.append(self.now)
        else:
            ends = self.now + np.cumsum(seconds)
            energy = self.total + np.cumsum(joules)
            self.starts.append(self.now)
            self.starts.frombytes(ends[:-1].tobytes())
            self.ends.frombytes(ends.tobytes())
            self.times.frombytes(ends[:-1].tobytes())
            self.energy.frombytes(energy[:-1].tobytes())
            self.now, self.total = float(ends[-1]), float(energy[-1])
        self._mark(totals)

    def outputs(self, runs: Sequence[tuple[int, int]]) -> Floats:
        """Return the times, in seconds, of the tokens of a job that is not running."""
        pieces = [self.ends[a:b] for a, b in runs]
        return np.concatenate([np.asarray(piece) for piece in pieces]) if pieces else np.empty(0)

    def joules_at(self, times: Sequence[float]) -> list[dict[str, float]]:
        """Return the cumulative joules at each time: ``total``, and the five parts that sum to it."""
        total = np.interp(times, np.asarray(self.times), np.asarray(self.energy))
        marks = np.asarray(self._plan_times)
        table = np.asarray(self._parts).reshape(-1, len(PARTS))
        columns = np.stack([np.interp(times, marks, column) for column in table.T])
        sums = columns.sum(axis=0)
        scale = np.divide(total, sums, out=np.ones_like(total), where=sums > 0)
        rows = (columns * scale).T
        return [
            {"total": float(whole), **dict(zip(PARTS, map(float, row), strict=True))}
            for whole, row in zip(total, rows, strict=True)
        ]

    def _mark(self, totals: Totals) -> None:
        self.times.append(self.now)
        self.energy.append(self.total)
        self._plan_times.append(self.now)
        self._parts.extend((totals.static, totals.prefill, totals.decode, totals.context, self.idle))
