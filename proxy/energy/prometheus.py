"""Energy from a Prometheus exporter (DCGM, Kepler, any metric by name), or from a Prometheus server.

``prometheus:URL`` scrapes an exporter's page; a URL whose path ends in ``/api/v1/query`` asks a server for
the raw samples it has. ``#METRIC=UNIT`` names another metric than the known ones, with unit ``mj``, ``j``,
``mw`` or ``w``.

Clocks: a scrape is stamped by this host's clock, in the middle of the exchange; a server's samples have the
server's stamps, turned into ours by asking its time. Staleness: exporters refresh their values every 1-30 s.
A counter says nothing new until it moves, so only moves are emitted; when nothing on a page has moved for
``STALE_NS``, power is no longer emitted either: the time is a gap, not a constant load.
"""

from collections.abc import Callable
from typing import Final

import httpx

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.exposition import Point, as_range, as_time, points
from proxy.energy.meter import Found, SensorError
from proxy.energy.remote_clock import RemoteClock
from proxy.units import MJ_PER_JOULE, MW_PER_WATT, NS_PER_SECOND

STALE_NS: Final = 60 * NS_PER_SECOND
_TIMEOUT_SECONDS: Final = 2.0
_RANGE: Final = "2m"
_API: Final = "/api/v1/query"
_UNITS: Final[dict[str, tuple[str, float]]] = {
    "mj": ("energy_mj", 1.0),
    "j": ("energy_mj", float(MJ_PER_JOULE)),
    "mw": ("power_mw", 1.0),
    "w": ("power_mw", float(MW_PER_WATT)),
}
_KNOWN: Final = (
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "mj"),
    ("kepler_node_gpu_joules_total", "j"),
    ("DCGM_FI_DEV_POWER_USAGE", "w"),
    ("kepler_node_gpu_watts", "w"),
)


class PrometheusSource:
    """One exporter or server; the first known metric that it has is read."""

    name = "prometheus"
    interval_s: float | None = 1.0

    def __init__(
        self,
        target: str,
        clock: Callable[[], int] = now_ns,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url, _, metric = target.partition("#")
        self._candidates = (_parse_metric(metric),) if metric else _KNOWN
        self._clock = clock
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, transport=transport)
        self._metric, self._unit = self._candidates[0]
        self._server = RemoteClock() if self._url.rstrip("/").endswith(_API) else None
        self._last: dict[str, Point] = {}
        self._moved_ns = 0

    def open(self) -> list[Found]:
        """Ask once; raises :class:`SensorError` when nothing answers or a known metric is missing."""
        for metric, unit in self._candidates:
            self._metric, self._unit = metric, unit
            found = self._points()
            if found:
                newest = {point.device: point for point in found}
                return [self._found(point) for point in newest.values()]
        names = ", ".join(metric for metric, _ in self._candidates)
        raise SensorError(f"prometheus: {self._url} has none of {names}: name one by URL#METRIC=UNIT")

    def read(self) -> list[Sample]:
        """What is new; raises :class:`SensorError`."""
        kind, factor = _UNITS[self._unit]
        samples = []
        for point in self._points():
            if self._is_new(point, counter=kind == "energy_mj"):
                value = point.value * factor
                energy_mj, power_mw = (value, None) if kind == "energy_mj" else (None, value)
                samples.append(Sample(point.t_ns, point.device, energy_mj, power_mw, self.name))
        return samples

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _is_new(self, point: Point, *, counter: bool) -> bool:
        """Whether a point says more than the device's last one."""
        last = self._last.get(point.device)
        if last is not None and point.t_ns <= last.t_ns:
            return False
        self._last[point.device] = point
        if last is None or last.value != point.value:
            self._moved_ns = max(self._moved_ns, point.t_ns)
            return True
        return not counter and point.t_ns - self._moved_ns < STALE_NS

    def _points(self) -> list[Point]:
        """Points of the metric, oldest first, stamped by our clock."""
        if self._server is None:
            before = self._clock()
            page = self._get(self._url)
            return points(page, self._metric, (before + self._clock()) // 2)
        before = self._clock()
        answer = self._get(self._url, "time()")
        self._server.exchange(before, as_time(answer), self._clock())
        return as_range(self._get(self._url, f"{self._metric}[{_RANGE}]"), self._server.here)

    def _get(self, url: str, query: str | None = None) -> str:
        try:
            answer = self._client.get(url, params={"query": query} if query else None)
            return answer.raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SensorError(f"prometheus: cannot read {self._url}: {error}") from error

    def _found(self, point: Point) -> Found:
        device = Device(id=point.device, name=point.name, uuid=point.uuid, source=self.name)
        reading = "energy counter" if _UNITS[self._unit][0] == "energy_mj" else "power"
        way = "through a Prometheus server: as late as its scrapes" if self._server else "scraped"
        return Found(device, f"{reading} ({self._metric})", None, None, (way,))


def _parse_metric(text: str) -> tuple[str, str]:
    """Name and unit of ``METRIC=UNIT``; the metric may have a selector in braces."""
    metric, _, unit = text.rpartition("=")
    if not metric or unit not in _UNITS:
        raise SensorError(
            f"prometheus: metric {text!r} should be METRIC=UNIT, unit one of {', '.join(_UNITS)}"
        )
    return metric, unit
