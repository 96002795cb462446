"""Which sources are what: the sampler and the meter ask by these protocols."""

from pathlib import Path

from proxy.energy.source import EdgeSource, ProcessSource, Source
from proxy.energy.sources.agent import AgentSource
from proxy.energy.sources.estimate import EstimateSource
from proxy.energy.sources.nvml import NvmlSource
from proxy.energy.sources.prometheus import PrometheusSource
from proxy.energy.sources.replay import ReplaySource
from proxy.energy.sources.simulated import SimulatedSource
from proxy.energy.sources.zeus import RaplSource, ZeusdSource, ZeusSource

SOURCES: list[Source] = [
    NvmlSource(),
    SimulatedSource(Path("none")),
    ReplaySource(Path("none")),
    PrometheusSource("http://exporter.example/metrics"),
    AgentSource("http://gpuhost.example:9009"),
    EstimateSource("cpu=100"),
    ZeusSource(),
    ZeusdSource("gpuhost.example:4938"),
    RaplSource(),
]


def test_counters_with_edges_are_followed_and_only_nvml_tells_processes() -> None:
    assert [s.name for s in SOURCES if isinstance(s, EdgeSource)] == ["nvml", "simulated"]
    assert [s.name for s in SOURCES if isinstance(s, ProcessSource)] == ["nvml"]


def test_what_is_refreshed_seldom_is_not_read_often() -> None:
    intervals = {s.name: s.interval_s for s in SOURCES}
    assert intervals["nvml"] is None
    assert intervals["prometheus"] == 1.0
    for source in SOURCES:
        source.close()
