"""Time between the steps of an engine, and who pays for it.

A host plans the next step, or is busy with other work, while the device draws its idle power and requests
wait. A step that is repeated back to back has its own such time in its cost; the time of a served step beyond
that, up to the begin of the next, does not depend on who is in it, so its Shapley value is an equal share for
each member. Before and after, no request is with the engine: that is idle time.
"""

from collections.abc import Sequence

import numpy as np

from proxy.core.events import Event, Sample
from proxy.gpu.engine import Step
from proxy.units import NS_PER_SECOND, joules_from_mj, seconds_from_ns


def intervals(steps: Sequence[Step]) -> list[float]:
    """Return the seconds that each step occupied the engine.

    That is the time to the begin of the next step if a member of it goes on, else the step's own length.
    """
    found = []
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        goes_on = after is not None and not set(step.members).isdisjoint(after.members)
        end = after.start_ns if after is not None and goes_on else step.end_ns
        found.append(seconds_from_ns(end - step.start_ns))
    return found


class Counter:
    """The energy counter in the events of a timeline with one device."""

    def __init__(self, events: Sequence[Event]) -> None:
        samples = [e for e in events if isinstance(e, Sample) and e.energy_mj is not None]
        self._at = np.array([s.t_ns for s in samples], float)
        self._joules = np.array([joules_from_mj(s.energy_mj or 0.0) for s in samples])

    def idle_watts(self, until_ns: int) -> float:
        """Return the mean power before a time; raise ``RuntimeError`` with fewer than two readings."""
        before = self._at < until_ns
        if np.count_nonzero(before) < 2:
            raise RuntimeError("fewer than two readings of the counter before the first step")
        at, joules = self._at[before], self._joules[before]
        return float((joules[-1] - joules[0]) / (at[-1] - at[0]) * NS_PER_SECOND)

    def occupied_joules(self, idle_watts: float, occupied_s: float) -> float:
        """Return all joules of the counter less the idle power of the time that was not occupied."""
        span = (self._at[-1] - self._at[0]) / NS_PER_SECOND
        return float(self._joules[-1] - self._joules[0] - idle_watts * (span - occupied_s))
