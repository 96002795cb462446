"""How far a profile, as simulated, is from published points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from proxy.simulator.profiles.profile import Profile
from tests.calibration.least_squares import Floats
from tests.calibration.models import Workload
from tests.calibration.published import Point
from tests.calibration.steady_state import Steady, measure

# Median relative errors over a batch sweep: J/token, throughput, median ITL, mean power.
TARGETS: Final = np.array([0.08, 0.08, 0.10, 0.06])
NAMES: Final = ("J/token", "tokens/s", "median ITL", "watts")


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors point by point, ours / theirs - 1, and ours."""

    joules_per_token: Floats
    throughput: Floats
    itl: Floats
    watts: Floats
    ours: tuple[Steady, ...]

    @property
    def medians(self) -> Floats:
        """Median absolute error of each, in the order of ``NAMES``."""
        each = (self.joules_per_token, self.throughput, self.itl, self.watts)
        return np.array([np.median(np.abs(errors)) for errors in each])


def compare(profile: Profile, work: Workload, points: Sequence[Point]) -> Errors:
    """Simulate the steady state of each point."""
    ours = tuple(measure(profile, work, p.batch, p.output_tokens) for p in points)
    pairs = list(zip(ours, points, strict=True))
    return Errors(
        np.array([o.joules_per_token / p.joules_per_token - 1 for o, p in pairs]),
        np.array([o.tokens_per_second / p.tokens_per_second - 1 for o, p in pairs]),
        np.array([o.median_itl_seconds / p.median_itl_seconds - 1 for o, p in pairs]),
        np.array([o.watts / p.watts - 1 for o, p in pairs]),
        ours,
    )
