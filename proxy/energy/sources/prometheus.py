"""Read energy or power from a Prometheus exporter (DCGM, Kepler, any metric by name) or a Prometheus server.

``prometheus:URL`` scrapes an exporter's page; with a URL whose path ends in ``/api/v1/query``, a server is
queried for its raw samples. ``#METRIC=UNIT`` names another metric than the known ones, with unit ``mj``,
``j``, ``mw`` or ``w``.

Clocks: a scrape gets the time of the middle of the exchange on this host's clock. The samples of a server
    have
its own stamps, which are converted by querying its time in each exchange.

Staleness: exporters refresh their values every 1 to 30 s. A counter carries no new information until it
advances, so only advances are reported, and in between power of the same exporter, by which the core detects
a stuck counter. If nothing on the page has changed for ``STALE_NS``, power is not reported any more either:
the time becomes a gap instead of a constant load.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from proxy.clock import now_ns
from proxy.core.energy.plausible import GENERIC_WATTS, is_amount
from proxy.core.events import Device, Sample
from proxy.energy.source import Found, SensorError, SourceOptions
from proxy.energy.sources.exposition import Point, as_range, as_time, points
from proxy.energy.sources.remote_clock import RemoteClock
from proxy.units import MJ_PER_JOULE, MW_PER_WATT, NS_PER_SECOND

STALE_NS: Final = 60 * NS_PER_SECOND
_TIMEOUT_SECONDS: Final = 2.0
_RANGE: Final = "2m"  # of a range query; covers a server that scrapes once a minute
_API: Final = "/api/v1/query"
_UNITS: Final[dict[str, tuple[str, float]]] = {
    "mj": ("energy_mj", 1.0),
    "j": ("energy_mj", float(MJ_PER_JOULE)),
    "mw": ("power_mw", 1.0),
    "w": ("power_mw", float(MW_PER_WATT)),
}


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric to read.

    Attributes:
        name: Name of the metric.
        unit: A key of ``_UNITS``.
        max_watts: Largest plausible power of one device.
        power: Metric of the same exporter that is read in addition to a counter.
    """

    name: str
    unit: str
    max_watts: float
    power: "_Metric | None" = None

    @property
    def is_counter(self) -> bool:
        return _UNITS[self.unit][0] == "energy_mj"

    def sample(self, point: Point) -> Sample:
        """Return a point as a reading."""
        value = _value(point, self)
        energy_mj, power_mw = (value, None) if self.is_counter else (None, value)
        return Sample(point.t_ns, point.device, energy_mj, power_mw, PrometheusSource.name)


_GPU_WATTS: Final = 3_000.0  # one GPU: more than a GB200 superchip (2.7 kW)
_NAMED_WATTS: Final = 200_000.0  # a metric named by the user may cover a rack
_DCGM_WATTS: Final = _Metric("DCGM_FI_DEV_POWER_USAGE", "w", _GPU_WATTS)
_KEPLER_WATTS: Final = _Metric("kepler_node_gpu_watts", "w", GENERIC_WATTS)
_KNOWN: Final = (
    _Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "mj", _GPU_WATTS, _DCGM_WATTS),
    _Metric("kepler_node_gpu_joules_total", "j", GENERIC_WATTS, _KEPLER_WATTS),
    _DCGM_WATTS,
    _KEPLER_WATTS,
)


class PrometheusSource:
    """One exporter or server; the first known metric that it has is read.

    Args:
        target: ``URL[#METRIC=UNIT]``.
        clock: Monotonic clock in nanoseconds.
        transport: HTTP transport of httpx; tests replace it.

    Raises:
        SensorError: if METRIC=UNIT is malformed.
    """

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
        self._metric = self._candidates[0]
        self._server = RemoteClock() if self._url.rstrip("/").endswith(_API) else None
        self._last: dict[tuple[str, str], Point] = {}
        self._moved_ns = 0

    def open(self) -> list[Found]:
        """Read once and choose the metric; raises :class:`SensorError` if none can be read.

        The first metric with a valid value of any device is chosen; if all values are blank, which may be
        temporary, the first one that exists.
        """
        found = dict(zip(self._candidates, self._points(self._candidates), strict=True))
        shown = {metric: points for metric, points in found.items() if points}
        if not shown:
            names = ", ".join(metric.name for metric in self._candidates)
            raise SensorError(
                f"prometheus: {self._url} has none of the metrics {names}: name one as URL#METRIC=UNIT"
            )
        usable = (m for m, points in shown.items() if any(is_amount(_value(point, m)) for point in points))
        self._metric = next(usable, next(iter(shown)))
        newest = {point.device: point for point in shown[self._metric]}
        return [self._found(point) for point in newest.values()]

    def read(self) -> list[Sample]:
        """Return new readings, and power beside a counter that did not move; raises :class:`SensorError`."""
        metrics = (self._metric,) if self._metric.power is None else (self._metric, self._metric.power)
        samples, moved = [], set()
        for metric, found in zip(metrics, self._points(metrics), strict=True):
            for point in found:
                if (point.device, point.t_ns) not in moved and self._is_new(point, metric):
                    samples.append(metric.sample(point))
                    moved.add((point.device, point.t_ns))
        return sorted(samples, key=lambda sample: sample.t_ns)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _is_new(self, point: Point, metric: _Metric) -> bool:
        """Return whether a point has new information beyond the device's last one of this metric."""
        last = self._last.get((metric.name, point.device))
        if last is not None and point.t_ns <= last.t_ns:
            return False
        self._last[metric.name, point.device] = point
        if last is None or last.value != point.value:
            self._moved_ns = max(self._moved_ns, point.t_ns)
            return True
        return not metric.is_counter and point.t_ns - self._moved_ns < STALE_NS

    def _points(self, metrics: Sequence[_Metric]) -> list[list[Point]]:
        """Return the points of each metric, oldest first, with local stamps."""
        before = self._clock()
        if self._server is None:
            page = self._get(self._url)
            t_ns = (before + self._clock()) // 2
            return [points(page, metric.name, t_ns) for metric in metrics]
        body = self._get(self._url, "time()")
        self._server.add_exchange(before, as_time(body), self._clock())
        ranges = [self._get(self._url, f"{metric.name}[{_RANGE}]") for metric in metrics]
        return [as_range(text, self._server.to_local) for text in ranges]

    def _get(self, url: str, query: str | None = None) -> str:
        try:
            response = self._client.get(url, params={"query": query} if query else None)
            return response.raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SensorError(f"prometheus: cannot read {self._url}: {error}") from error

    def _found(self, point: Point) -> Found:
        metric = self._metric
        device = Device(
            point.device, point.name, uuid=point.uuid, source=self.name, max_watts=metric.max_watts
        )
        reading = "energy counter" if metric.is_counter else "power"
        way = "from a Prometheus server, delayed by its scrape interval" if self._server else "scraped"
        blank = () if is_amount(_value(point, metric)) else ("its value is blank now",)
        return Found(device, f"{reading} ({metric.name})", None, None, (way, *blank))


def _value(point: Point, metric: _Metric) -> float:
    """Return the value of a point in mJ or mW."""
    return point.value * _UNITS[metric.unit][1]


def _parse_metric(text: str) -> _Metric:
    """Parse ``METRIC=UNIT``; the metric may have a label selector in braces."""
    name, _, unit = text.rpartition("=")
    if not name or unit not in _UNITS:
        raise SensorError(f"prometheus: metric {text!r} must be METRIC=UNIT, unit one of {', '.join(_UNITS)}")
    return _Metric(name, unit, _NAMED_WATTS)


def create(options: SourceOptions) -> PrometheusSource:
    """Create the source that :mod:`proxy.config.sources` registers as ``prometheus``."""
    return PrometheusSource(options.argument)
