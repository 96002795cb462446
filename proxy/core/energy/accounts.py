"""The account of one device: what was measured, and to whom it went, window by window.

Law, per device: ``requests + idle + unattributed == measured`` over any span of closed windows.
"""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.energy.energy_series import EnergySeries
from proxy.core.energy.outside import OutsideWork
from proxy.core.numerics.order_statistics import median
from proxy.schema import DeviceAccount, Gap, Unknown
from proxy.units import NS_PER_SECOND

KEEP_WINDOWS: Final = 200_000
POWER_ERROR: Final = 0.10  # polled power is up to 9 % off an external meter (arXiv 2312.02741)
_COLUMNS: Final = ("measured", "requests", "idle", "unattributed")


class Account:
    """Cumulative joules at the edges of closed windows; totals are kept for ever, edges for a while."""

    __slots__ = (
        "_columns",
        "_edges",
        "_gain_error",
        "device",
        "idle_watts",
        "name",
        "outside",
        "series",
        "series_start_ns",
    )

    def __init__(
        self,
        device: str,
        name: str | None = None,
        gain_error: float | None = None,
        max_watts: float | None = None,
    ) -> None:
        self.device = device
        self.name = name
        self._gain_error = gain_error
        self.series = EnergySeries(max_watts)
        self.outside = OutsideWork()
        self.idle_watts: float | None = None  # of windows in which nothing ran, the newest count half
        self.series_start_ns: int | None = None  # first reading ever; the series forgets
        self._edges = array("q")
        self._columns = {column: array("d") for column in _COLUMNS}

    @property
    def gain_error(self) -> float | None:
        """Relative 90 % error of the readings; that of power once a stuck counter was replaced by it."""
        if self.series.fell_back:
            return max(self._gain_error or 0.0, POWER_ERROR)
        return self._gain_error

    @property
    def closed_ns(self) -> int | None:
        """Until when windows are closed; None before the first reading."""
        return self._edges[-1] if self._edges else self.series.first_ns

    def book(
        self,
        edges: NDArray[np.int64],
        measured: NDArray[np.float64],
        requests: NDArray[np.float64],
        unattributed: NDArray[np.float64],
    ) -> None:
        """Close windows: edges (W + 1,) ns, joules (W,). What no one is charged for is idle."""
        if not self._edges:
            self.series_start_ns = int(edges[0])
            self._edges.append(int(edges[0]))
            for column in self._columns.values():
                column.append(0.0)
        requests = np.minimum(requests, measured - unattributed)
        idle = measured - requests - unattributed
        self._learn_idle(edges, idle, (requests <= 0.0) & (unattributed <= 0.0) & (measured > 0.0))
        self._edges.extend(edges[1:].tolist())
        for name, values in zip(_COLUMNS, (measured, requests, idle, unattributed), strict=True):
            column = self._columns[name]
            column.extend((column[-1] + np.cumsum(values)).tolist())
        if len(self._edges) > 2 * KEEP_WINDOWS:
            del self._edges[:-KEEP_WINDOWS]
            for column in self._columns.values():
                del column[:-KEEP_WINDOWS]

    def _learn_idle(
        self, edges: NDArray[np.int64], idle: NDArray[np.float64], nothing_ran: NDArray[np.bool_]
    ) -> None:
        if nothing_ran.any():
            watts = median(idle[nothing_ran] / np.diff(edges)[nothing_ran] * NS_PER_SECOND)
            self.idle_watts = watts if self.idle_watts is None else 0.5 * (self.idle_watts + watts)

    def total(self) -> DeviceAccount:
        """The account since the first reading."""
        last = {name: column[-1] if column else 0.0 for name, column in self._columns.items()}
        return self._account(last, self.series_start_ns, self.closed_ns, tuple(self.series.gaps))

    def between(self, start_ns: int, end_ns: int) -> DeviceAccount:
        """The account over [start_ns, end_ns), windows at its ends taken in proportion.

        What was measured but is not closed yet is ``open_joules``.
        """
        gaps = self._gaps_between(start_ns, end_ns)
        if not self._edges:
            return self._account(dict.fromkeys(_COLUMNS, 0.0), start_ns, end_ns, gaps)
        ends = (np.array([start_ns, end_ns]) - self._edges[0]).astype(float)
        at = (np.array(self._edges) - self._edges[0]).astype(float)
        over = {
            name: float(np.diff(np.interp(ends, at, np.array(column)))[0])
            for name, column in self._columns.items()
        }
        return self._account(over, start_ns, end_ns, gaps)

    def _gaps_between(self, start_ns: int, end_ns: int) -> tuple[Gap, ...]:
        """What is not known of [start_ns, end_ns): gaps, and what lies before the first window kept."""
        gaps = tuple(g for g in self.series.gaps if g.start_ns < end_ns and g.end_ns > start_ns)
        first = self._edges[0] if self._edges else self.series.first_ns
        if first is None or first <= start_ns:
            return gaps
        forgotten = bool(self._edges) and first != self.series_start_ns
        reason = Unknown.NO_LONGER_KEPT if forgotten else Unknown.BEFORE_FIRST_SAMPLE
        return (Gap(start_ns, min(first, end_ns), reason), *gaps)

    def _account(
        self,
        joules: dict[str, float],
        start_ns: int | None,
        end_ns: int | None,
        gaps: tuple[Gap, ...],
    ) -> DeviceAccount:
        closed, edge = self.closed_ns, self.series.edge_ns
        still_open = 0.0
        if closed is not None and edge is not None:
            low = max(closed, start_ns or closed)
            high = min(edge, end_ns) if end_ns is not None and end_ns != closed else edge
            if high > low:
                still_open = self.series.joules_at(high) - self.series.joules_at(low)
        return DeviceAccount(
            device=self.device,
            name=self.name,
            source=self.series.source,
            measured_joules=joules["measured"],
            requests_joules=joules["requests"],
            idle_joules=joules["idle"],
            unattributed_joules=joules["unattributed"],
            open_joules=still_open,
            watts=self.series.watts,
            start_ns=start_ns,
            end_ns=end_ns,
            gaps=gaps,
            notes=self.series.notes(),
        )
