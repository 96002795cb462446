"""Sensors: what a driver reports of a device's power (sources: arXiv 2312.02741, nvml.h)."""

import bisect
from dataclasses import dataclass, field

from proxy.core.events import Event, Sample
from proxy.truth.cases import Case

NS = 1_000_000_000
START_MJ = 987_654  # the counter runs since the driver was loaded


@dataclass(slots=True)
class Power:
    """Cumulative energy of pieces of constant power that follow each other."""

    ends: list[float] = field(default_factory=lambda: [0.0])
    joules: list[float] = field(default_factory=lambda: [0.0])

    def add(self, start: float, end: float, joules: float) -> None:
        """Append a piece; ``start`` is the end of the one before."""
        assert start == self.ends[-1]
        self.ends.append(end)
        self.joules.append(self.joules[-1] + joules)

    def until(self, t: float) -> float:
        """Joules from the start to ``t`` (s)."""
        index = min(max(bisect.bisect_right(self.ends, t), 1), len(self.ends) - 1)
        t0, t1 = self.ends[index - 1], self.ends[index]
        j0, j1 = self.joules[index - 1], self.joules[index]
        return j0 + (j1 - j0) * min(max((t - t0) / (t1 - t0), 0.0), 1.0)


def samples(power: Power, case: Case, device: str, scale: float) -> list[Event]:
    """Return the readings of one device that draws ``scale`` of the engine's power."""
    out: list[Event] = []
    count = int(power.ends[-1] / case.period_s)
    for tick in range(1, count + 1):
        t = tick * case.period_s
        stamp = round(t * NS)
        if case.sensor == "counter":
            millijoules = float(int(power.until(t) * scale * 1e3) + START_MJ)
            out.append(Sample(stamp, device, energy_mj=millijoules))
        else:
            width = _averaged(case)
            watts = (power.until(t) - power.until(t - width)) / width * scale
            out.append(Sample(stamp, device, power_mw=float(round(watts * 1e3))))
    return out


def _averaged(case: Case) -> float:
    """Seconds over which one reading averages."""
    match case.sensor:
        case "power_25_of_100_ms":
            return 0.025
        case "power_1_s":
            return 1.0
        case _:
            return case.period_s


class Meter:
    """One device's energy: pieces of work that follow each other, and idling between them."""

    def __init__(self, idle_watts: float) -> None:
        self._idle_watts = idle_watts
        self._power = Power()
        self.until_s = 0.0

    def add(self, start: float, end: float, joules: float) -> None:
        """Append a piece of work over [start, end) seconds; what lies before it was idle."""
        self._idle(start)
        self._power.add(self.until_s, end, joules)
        self.until_s = end

    def _idle(self, until: float) -> float:
        joules = self._idle_watts * max(until - self.until_s, 0.0)
        if until > self.until_s:
            self._power.add(self.until_s, until, joules)
            self.until_s = until
        return joules

    def finish(self, end: float) -> float:
        """Stay idle until ``end`` seconds; the joules of all idling."""
        self._idle(end)
        return 0.0

    def samples(self, device: str, period_s: float, lag_s: float) -> list[Event]:
        """Return the readings of the cumulative counter, which shows what was used ``lag_s`` before."""
        out: list[Event] = []
        for tick in range(1, int(self.until_s / period_s) + 1):
            t = tick * period_s
            millijoules = float(int(self._power.until(t - lag_s) * 1e3) + START_MJ)
            out.append(Sample(round(t * NS), device, energy_mj=millijoules))
        return out
