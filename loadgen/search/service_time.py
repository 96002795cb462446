"""Estimate the mean time that a request spends in a server, from probes too short to see all ends. Pure.

By Little's law, load times this mean is the number of requests in flight where no queue grows. The mean of
completed requests would be too short: a probe of two seconds has seen the ends of the short ones only. Those
that are still in flight are censored observations; Kaplan and Meier's estimate (1958) of the distribution
uses both. The longest time seen is taken as an end (Efron 1967), so that the mean is finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loadgen.results.records import Record
from proxy.units import NS_PER_SECOND

# Completed requests of earlier probes that give a mean of their own.
_ENOUGH = 20


@dataclass(slots=True)
class ServiceTime:
    """Times in the server, seconds, each with whether the request ended; of probes without a queue."""

    _times: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, records: Sequence[Record], elapsed_s: float) -> None:
        """Add the requests of a probe without a queue, seen ``elapsed_s`` after its start."""
        self._times += _times(records, elapsed_s)

    def mean(self, records: Sequence[Record], elapsed_s: float) -> float:
        """Return the mean, for a probe of ``records``; 0 if no request has ended.

        The probe's own requests are used only as long as the earlier ones are too few: if it has a queue, the
        mean that would reveal it must not include it.
        """
        enough = sum(ended for _, ended in self._times) >= _ENOUGH
        return restricted_mean(self._times if enough else [*self._times, *_times(records, elapsed_s)])


def restricted_mean(times: Sequence[tuple[float, bool]]) -> float:
    """Return the mean of times of which some are censored (False), up to the longest; 0 if none has ended."""
    if not any(ended for _, ended in times):
        return 0.0
    # At equal times ends come first: a censored request was still there.
    ordered = sorted(times, key=lambda one: (one[0], not one[1]))
    at = np.array([seconds for seconds, _ in ordered])
    ended = np.array([end for _, end in ordered], np.float64)
    still = np.cumprod(1 - ended / np.arange(len(at), 0, -1))
    return float((np.concatenate([[1.0], still[:-1]]) * np.diff(at, prepend=0.0)).sum())


def _times(records: Sequence[Record], elapsed_s: float) -> list[tuple[float, bool]]:
    return [
        (elapsed_s - r.scheduled_ns / NS_PER_SECOND, False)
        if r.end_ns is None
        else ((r.end_ns - r.scheduled_ns) / NS_PER_SECOND, True)
        for r in records
        if r.ok
    ]
