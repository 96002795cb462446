"""Work on a device that did not pass through the proxy: what the evidence says of it, window by window.

Evidence comes as spans of time with the share of the device's work that was others'. That share of a
window's measured energy is *unattributed*; only the rest is divided among requests. While evidence is
coming, windows wait for it; when it stops for ``STALE_NS``, they do not.

How much of the work was others' is known only roughly (an engine's counters are read once a second, and tell
of requests, not of their size). So every request that lived near such a time is marked (``reason``): its
joules are an estimate. Near is ``BEFORE_NS`` before the evidence, which needs two looks, and ``AFTER_NS``
after it, as light traffic is not seen at each look.
"""

from array import array
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.events import Outside
from proxy.schema import Unknown
from proxy.units import NS_PER_SECOND

STALE_NS: Final = 5 * NS_PER_SECOND
BEFORE_NS: Final = 2 * NS_PER_SECOND
AFTER_NS: Final = 10 * NS_PER_SECOND
_KEPT: Final = 100  # stretches of foreign work, each with more than AFTER_NS to the next
_REASONS: Final = {"processes": Unknown.OTHER_PROCESSES}  # of evidence; others are of an engine's metrics


class OutsideWork:
    """Shares over time of one device: a step function, 0 where nothing was said."""

    __slots__ = ("_ends", "_marks", "_shares", "_starts")

    def __init__(self) -> None:
        self._starts = array("q")
        self._ends = array("q")
        self._shares = array("d")
        self._marks: deque[tuple[int, int, Unknown]] = deque(maxlen=_KEPT)  # start, end, reason

    def feed(self, event: Outside) -> None:
        """Take evidence; spans do not overlap and come in order."""
        start = max(event.start_ns, self._ends[-1]) if self._ends else event.start_ns
        if event.t_ns > start:
            self._starts.append(start)
            self._ends.append(event.t_ns)
            self._shares.append(min(max(event.share, 0.0), 1.0))
            if event.share > 0.0:
                self._mark(start, event.t_ns, _REASONS.get(event.reason or "", Unknown.UNSEEN_TRAFFIC))

    def _mark(self, start_ns: int, end_ns: int, reason: Unknown) -> None:
        """Remember a stretch of foreign work; one that goes on is one."""
        if self._marks and self._marks[-1][2] is reason and start_ns <= self._marks[-1][1] + AFTER_NS:
            start_ns = self._marks.pop()[0]
        self._marks.append((start_ns, end_ns, reason))

    def reason(self, start_ns: int, end_ns: int | None) -> Unknown | None:
        """Why the energy of a request that lived from ``start_ns`` to ``end_ns`` (None: now) is unsure."""
        for begin, end, reason in reversed(self._marks):
            if end + AFTER_NS < start_ns:
                break
            if end_ns is None or begin - BEFORE_NS < end_ns:
                return reason
        return None

    def horizon(self, edge_ns: int) -> int:
        """Until when windows may be closed: the last evidence, unless none comes any more."""
        if not self._ends or edge_ns - self._ends[-1] > STALE_NS:
            return edge_ns
        return min(edge_ns, self._ends[-1])

    def of(self, edges: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean share of others in each window; edges (W + 1,) ns, result (W,) within [0, 1]."""
        result = np.zeros(len(edges) - 1)
        if not any(self._shares):
            return result
        base = edges[0]
        starts = (np.array(self._starts) - base).astype(float)
        ends = (np.array(self._ends) - base).astype(float)
        knots = np.stack([starts, ends], axis=1).ravel()
        used = np.stack([np.zeros(len(starts)), (ends - starts) * np.array(self._shares)], axis=1).ravel()
        at = (edges - base).astype(float)
        shared = np.diff(np.interp(at, knots, np.cumsum(used)))
        result[:] = np.clip(shared / np.maximum(np.diff(at), 1.0), 0.0, 1.0)
        return result

    def forget(self, t_ns: int) -> None:
        """Drop what ended before ``t_ns``."""
        while len(self._ends) > 1 and self._ends[0] < t_ns:
            del self._starts[0], self._ends[0], self._shares[0]
