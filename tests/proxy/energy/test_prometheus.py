import httpx
import pytest

from proxy.core.events import Sample
from proxy.energy.meter import SensorError
from proxy.energy.prometheus import PrometheusSource

DCGM = """# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",modelName="H100"} 311.5
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a",modelName="H100"} 1234567
"""
URL = "http://exporter.example/metrics"


def _source(page: str, target: str = URL, status: int = 200) -> PrometheusSource:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=page))
    return PrometheusSource(target, clock=lambda: 100, transport=transport)


def test_counter_is_preferred_to_power() -> None:
    source = _source(DCGM)
    (found,) = source.open()
    assert found.reading == "energy counter (DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION)"
    assert source.read() == [Sample(100, "GPU-a", energy_mj=1234567.0, source="prometheus")]
    source.close()


def test_any_metric_by_name_and_unit() -> None:
    source = _source(DCGM, URL + "#DCGM_FI_DEV_POWER_USAGE=w")
    source.open()
    assert source.read() == [Sample(100, "GPU-a", power_mw=311500.0, source="prometheus")]
    source.close()


@pytest.mark.parametrize(
    ("page", "status", "reason"),
    [("x 1\n", 200, "has none of DCGM"), ("", 503, "503"), ("{{{ 1", 200, "prometheus: ")],
)
def test_says_why_not(page: str, status: int, reason: str) -> None:
    source = _source(page, status=status)
    with pytest.raises(SensorError, match=reason):
        source.open()
    source.close()


def test_refuses_a_unit_it_does_not_know() -> None:
    with pytest.raises(SensorError, match="unit one of mj, j, mw, w"):
        PrometheusSource(URL + "#power=horses")
