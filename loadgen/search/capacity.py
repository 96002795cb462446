"""Estimate the capacity of a server: the rate at which it works off a queue. Pure.

An open-loop load above the capacity cannot be sustained for any time (the condition of stability of a queue),
whatever the latencies of the first seconds are: with a fast server and a short probe, no request may have
waited long enough yet to be late. So the capacity bounds the knee from above. It is measured after an
overload: nothing is sent, and the requests that leave in that time had all been waiting or in service.

The estimate is high by the work that was already done for requests in service, at most one batch, and low if
the last requests leave some of the server idle. It is therefore a prior of the knee and not a hard bound.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Requests and seconds of draining that give a rate: fewer are those in service, not a queue.
_LEAST_REQUESTS, _LEAST_SECONDS = 20, 1.0
# Systematic relative error of the rate (see above); the statistical one is that of a Poisson count.
_SYSTEMATIC = 0.05


@dataclass(slots=True)
class Capacity:
    """Requests that left the server while its queue was drained, and the seconds that this took."""

    requests: int = 0
    seconds: float = 0.0

    def drained(self, requests: int, seconds: float) -> None:
        """Add one draining of the queue; ignored if it is too short to give a rate."""
        if requests >= _LEAST_REQUESTS and seconds > _LEAST_SECONDS:
            self.requests += requests
            self.seconds += seconds

    @property
    def rate(self) -> float | None:
        """Requests per second; None before a queue was drained."""
        return self.requests / self.seconds if self.requests else None

    def log_prior(self, knees: Floats) -> Floats:
        """Return the log probability that each of ``knees`` (logarithms of rates) is below the capacity."""
        if self.rate is None:
            return np.zeros(len(knees))
        error = _SYSTEMATIC + 1 / math.sqrt(self.requests)
        distance = (knees - math.log(self.rate)) / (error * math.sqrt(2))
        return np.log([max(1e-12, math.erfc(one) / 2) for one in distance.tolist()])
