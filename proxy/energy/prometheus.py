"""Energy from a Prometheus exporter (DCGM, Kepler, any metric by name) by scraping its text page.

``prometheus:URL`` knows the metrics below; ``prometheus:URL#metric=unit`` names another one, with unit
``mj``, ``j``, ``mw`` or ``w``. Stamps are this host's clock at the scrape: clocks of two hosts are never
subtracted. A counter that has not moved is emitted as it is; a page that does not come is a gap.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from proxy.clock import now_ns
from proxy.core.events import Device, Sample
from proxy.energy.meter import Found, SensorError
from proxy.units import MJ_PER_JOULE, MW_PER_WATT

_TIMEOUT_SECONDS: Final = 2.0
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
)
_ID_LABELS: Final = ("UUID", "uuid", "gpu", "device")


@dataclass(frozen=True, slots=True)
class _Point:
    """One sample of the page: the device's id, name and value in the page's unit."""

    device: str
    name: str | None
    value: float


class PrometheusSource:
    """One exporter's page; the first known metric that is on it is read."""

    name = "prometheus"
    interval_s: float | None = None

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

    def open(self) -> list[Found]:
        """Scrape once; raises :class:`SensorError` when the page or a known metric is missing."""
        page = self._scrape()
        for metric, unit in self._candidates:
            points = _points(page, metric)
            if points:
                self._metric, self._unit = metric, unit
                return [self._found(point) for point in points]
        names = ", ".join(metric for metric, _ in self._candidates)
        raise SensorError(f"prometheus: {self._url} has none of {names}: name one by URL#metric=unit")

    def read(self) -> list[Sample]:
        """One scrape; raises :class:`SensorError`. The stamp is the middle of the exchange."""
        before = self._clock()
        points = _points(self._scrape(), self._metric)
        t_ns = (before + self._clock()) // 2
        kind, factor = _UNITS[self._unit]
        samples = []
        for point in points:
            value = point.value * factor
            energy_mj, power_mw = (value, None) if kind == "energy_mj" else (None, value)
            samples.append(Sample(t_ns, point.device, energy_mj, power_mw, self.name))
        return samples

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _scrape(self) -> str:
        try:
            return self._client.get(self._url).raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SensorError(f"prometheus: cannot scrape {self._url}: {error}") from error

    def _found(self, point: _Point) -> Found:
        device = Device(id=point.device, name=point.name, source=self.name)
        reading = "energy counter" if _UNITS[self._unit][0] == "energy_mj" else "power"
        return Found(device, f"{reading} ({self._metric})", None, None)


def _parse_metric(text: str) -> tuple[str, str]:
    """Name and unit of ``metric=unit``."""
    metric, _, unit = text.partition("=")
    if not metric or unit not in _UNITS:
        raise SensorError(f"prometheus: metric {text!r} should be NAME=UNIT, unit one of {', '.join(_UNITS)}")
    return metric, unit


def _points(page: str, metric: str) -> list[_Point]:
    """The page's samples of one metric; several of one device are summed (Kepler's zones)."""
    found: dict[str, _Point] = {}
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name not in {metric, f"{metric}_total"}:  # the parser adds it to counters
                    continue
                ids = [sample.labels[label] for label in _ID_LABELS if label in sample.labels]
                device = ids[0] if ids else "device0"
                value = sample.value + (found[device].value if device in found else 0.0)
                found[device] = _Point(device, sample.labels.get("modelName"), value)
    except ValueError as error:
        raise SensorError(f"prometheus: not a metrics page: {error}") from error
    return list(found.values())
