"""Recorded GPU sensors beside an external meter, read as the power fallback reads them.

The recordings (GPU_Power_Benchmark, arXiv 2312.02741) are not part of this project: without them the tests
skip. ``TEST_POWER_DATA`` names their folder, else it is ``shared/data/power`` beside the checkout.
"""

import csv
import gzip
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from proxy.core.energy.energy_series import EnergySeries
from proxy.core.events import Device, Sample
from proxy.energy.sampling.sampler import Sampler
from proxy.energy.source import Found
from proxy.units import NS_PER_SECOND, ns_from_seconds
from tests.beside import beside
from tests.fakes.ticking import Ticking

DATA = beside("TEST_POWER_DATA", "data/power")
AHEAD_S = 3600.0  # the sensor's stamps are local time

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded sensor traces are not here")


@dataclass(frozen=True, slots=True)
class Recording:
    """Seconds since the first sensor reading; watts."""

    sensor_s: list[float]
    sensor_w: list[float]
    meter_s: list[float]
    meter_w: list[float]
    load: tuple[float, float]  # from the first load on to the last off

    def sensor_joules(self, start: float, end: float) -> float:
        return _integral(self.sensor_s, self.sensor_w, start, end)

    def meter_joules(self, start: float, end: float) -> float:
        return _integral(self.meter_s, self.meter_w, start, end)


class Recorded:
    """A source whose one device shows what the recorded sensor showed at that time."""

    name = "recorded"
    interval_s: float | None = None

    def __init__(self, recording: Recording, clock: Ticking) -> None:
        self.recording, self.clock = recording, clock

    def open(self) -> list[Found]:
        return [Found(Device("gpu0"), "power (instant)", None, None)]

    def read(self) -> list[Sample]:
        t_ns = self.clock()
        at = bisect_right(self.recording.sensor_s, (t_ns - NS_PER_SECOND) / NS_PER_SECOND) - 1
        return [Sample(t_ns, "gpu0", power_mw=self.recording.sensor_w[max(at, 0)] * 1000)]

    def close(self) -> None:
        pass


def _integral(stamps: list[float], watts: list[float], start: float, end: float) -> float:
    """Trapezoids, the ends interpolated."""
    inner = [t for t in stamps if start < t < end]
    at = np.array([start, *inner, end])
    return float(np.trapezoid(np.interp(at, stamps, watts), at))


def _recording(name: str, column: str) -> Recording:
    with gzip.open(DATA / f"sensor_{name}_nvidia_smi.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    with gzip.open(DATA / f"sensor_{name}_pmd.csv.gz", "rt") as file:
        meter = [(float(row["unix_s"]), float(row["power_w"])) for row in csv.DictReader(file)]
    edges = [int(line) / 1e6 for line in (DATA / f"sensor_{name}_load_edges_us.csv").read_text().split()[1:]]
    stamps = [
        datetime.strptime(row["timestamp"], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp() - AHEAD_S
        for row in rows
    ]
    zero = stamps[0]
    return Recording(
        [t - zero for t in stamps],
        [float(row[column]) for row in rows],
        [t - zero for t, _ in meter],
        [w for _, w in meter],
        (edges[0] - zero, edges[-1] - zero),
    )


def _ours(recording: Recording, hz: float) -> float:
    """Joules over the load, as the sampler and the core have them."""
    clock = Ticking(NS_PER_SECOND + ns_from_seconds(recording.sensor_s[-1]))
    series = EnergySeries()

    def take(samples: list[Sample]) -> None:
        for sample in samples:
            series.feed(sample)

    sampler = Sampler(Recorded(recording, clock), take, hz, clock=clock, wait=clock.wait)
    sampler.run()
    start, end = (NS_PER_SECOND + ns_from_seconds(t) for t in recording.load)
    assert not series.gaps
    return series.joules_at(end) - series.joules_at(start)


@pytest.mark.parametrize("column", ["power.draw [W]", "power.draw.instant [W]"])
@pytest.mark.parametrize(("name", "gap_percent"), [("A100_5050", 0.0), ("RTX3090_step", -5.0)])
def test_polling_loses_nothing_of_what_the_sensor_shows(name: str, column: str, gap_percent: float) -> None:
    recording = _recording(name, column)
    ours, sensor = _ours(recording, 20.0), recording.sensor_joules(*recording.load)
    assert ours == pytest.approx(sensor, rel=0.03)
    gap = 100 * (sensor / recording.meter_joules(*recording.load) - 1)
    assert gap == pytest.approx(gap_percent, abs=0.5)  # as docs/sensors.md states
