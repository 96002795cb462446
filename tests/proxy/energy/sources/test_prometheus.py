import httpx
import pytest

from proxy.core.events import Sample
from proxy.energy.source import SensorError
from proxy.energy.sources.prometheus import PrometheusSource
from proxy.units import NS_PER_MS, NS_PER_SECOND

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
    [("x 1\n", 200, "has none of the metrics DCGM"), ("", 503, "503"), ("{{{ 1", 200, "prometheus: ")],
)
def test_says_why_not(page: str, status: int, reason: str) -> None:
    source = _source(page, status=status)
    with pytest.raises(SensorError, match=reason):
        source.open()
    source.close()


def test_refuses_a_unit_it_does_not_know() -> None:
    with pytest.raises(SensorError, match="unit one of mj, j, mw, w"):
        PrometheusSource(URL + "#power=horses")


class Exporter:
    """Pages in turn, one a scrape; each scrape takes a second of the clock."""

    def __init__(self, *pages: str) -> None:
        self.pages = list(pages)
        self.now_ns = 0

    def clock(self) -> int:
        return self.now_ns

    def answer(self, request: httpx.Request) -> httpx.Response:
        del request
        self.now_ns += NS_PER_SECOND
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        return httpx.Response(200, text=page)

    def source(self) -> PrometheusSource:
        return PrometheusSource(URL, self.clock, httpx.MockTransport(self.answer))


def test_a_counter_that_is_refreshed_seldom_is_told_when_it_moves() -> None:
    name = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    pages = [f'# TYPE {name} counter\n{name}{{UUID="GPU-a"}} {mj}\n' for mj in (1, 5, 5, 5, 9)]
    exporter = Exporter(*pages)
    source = exporter.source()
    source.open()
    stamps = [(s.t_ns // NS_PER_MS, s.energy_mj) for _ in range(5) for s in source.read()]
    assert stamps == [(1500, 5.0), (4500, 9.0)]
    source.close()


def test_power_is_told_while_it_stands_still_but_not_for_ever() -> None:
    exporter = Exporter('DCGM_FI_DEV_POWER_USAGE{UUID="GPU-a"} 70\n')
    source = exporter.source()
    source.open()
    told = sum(len(source.read()) for _ in range(100))
    assert told == 60  # then the exporter is taken for dead
    source.close()


def test_a_server_is_asked_for_raw_samples_on_its_own_clock() -> None:
    queries = []

    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params["query"]
        queries.append(query)
        if query == "time()":
            return httpx.Response(200, text='{"status":"success","data":{"result":[5000,"5000"]}}')
        series = '{"metric":{"UUID":"GPU-a","modelName":"H100"},"values":[[4990,"100"],[4995,"600"]]}'
        return httpx.Response(200, text=f'{{"status":"success","data":{{"result":[{series}]}}}}')

    source = PrometheusSource(
        "http://prometheus.example/api/v1/query#kepler_node_gpu_joules_total=j",
        clock=lambda: 60 * NS_PER_SECOND,
        transport=httpx.MockTransport(answer),
    )
    (found,) = source.open()
    assert found.device.name == "H100"
    assert [(s.t_ns // NS_PER_SECOND, s.energy_mj) for s in source.read()] == [(50, 1e5), (55, 6e5)]
    assert source.read() == []  # nothing twice
    assert set(queries) == {"time()", "kepler_node_gpu_joules_total[2m]"}
    source.close()


def test_power_of_a_server_that_stands_still_is_told_once_a_scrape() -> None:
    series = '{"metric":{"UUID":"GPU-a"},"values":[[4980,"300"],[4985,"300"],[4990,"300"],[4995,"300"]]}'

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params["query"] == "time()":
            return httpx.Response(200, text='{"status":"success","data":{"result":[5000,"5000"]}}')
        return httpx.Response(200, text=f'{{"status":"success","data":{{"result":[{series}]}}}}')

    source = PrometheusSource(
        "http://prometheus.example/api/v1/query#watts=w",
        lambda: 60 * NS_PER_SECOND,
        httpx.MockTransport(answer),
    )
    source.open()
    assert [len(source.read()) for _ in range(3)] == [4, 0, 0]
    source.close()


def test_power_is_given_while_the_counter_does_not_move() -> None:
    exporter = Exporter(DCGM)
    source = exporter.source()
    source.open()
    assert [(s.energy_mj, s.power_mw) for s in source.read()] == [(1234567.0, None)]
    assert [(s.energy_mj, s.power_mw) for s in source.read()] == [(None, 311500.0)]
    source.close()


def test_a_counter_that_is_blank_is_passed_over_for_power() -> None:
    source = _source(DCGM.replace("1234567", "9223372036854775794"))
    (found,) = source.open()
    assert found.reading == "power (DCGM_FI_DEV_POWER_USAGE)"
    source.close()


def test_a_value_that_is_blank_at_the_start_is_noted_and_may_pass() -> None:
    source = _source('DCGM_FI_DEV_POWER_USAGE{UUID="GPU-a"} 140737488355328\n')
    (found,) = source.open()
    assert found.notes == ("scraped", "its value is blank now")
    source.close()
