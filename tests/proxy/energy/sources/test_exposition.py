import pytest

from proxy.energy.source import SensorError
from proxy.energy.sources.exposition import as_range, as_time, points
from proxy.units import NS_PER_SECOND


def test_modes_of_one_device_are_summed() -> None:
    page = (
        "# TYPE kepler_node_gpu_joules_total counter\n"
        'kepler_node_gpu_joules_total{mode="dynamic",gpu_uuid="GPU-a",gpu_name="T4"} 10\n'
        'kepler_node_gpu_joules_total{mode="idle",gpu_uuid="GPU-a",gpu_name="T4"} 5.5\n'
    )
    (point,) = points(page, "kepler_node_gpu_joules_total", 7)
    assert (point.device, point.name, point.uuid, point.value, point.t_ns) == (
        "GPU-a",
        "T4",
        "GPU-a",
        15.5,
        7,
    )


def test_mig_instances_would_count_the_gpu_several_times() -> None:
    page = 'DCGM_FI_DEV_POWER_USAGE{UUID="GPU-a",GPU_I_ID="1",GPU_I_PROFILE="1g.10gb"} 300\n'
    with pytest.raises(SensorError, match="disable MIG"):
        points(page, "DCGM_FI_DEV_POWER_USAGE", 7)


def test_a_servers_raw_samples_have_their_own_stamps() -> None:
    answer = (
        '{"status":"success","data":{"resultType":"matrix","result":['
        '{"metric":{"UUID":"GPU-b"},"values":[[1000.25,"5"],[1015.25,"9"]]},'
        '{"metric":{"UUID":"GPU-a"},"values":[[1001,"1"]]}]}}'
    )
    found = as_range(answer, lambda t: t - 1000 * NS_PER_SECOND)
    assert [(p.device, p.value, p.t_ns) for p in found] == [
        ("GPU-b", 5.0, NS_PER_SECOND // 4),
        ("GPU-a", 1.0, NS_PER_SECOND),
        ("GPU-b", 9.0, NS_PER_SECOND * 61 // 4),
    ]


def test_a_servers_time() -> None:
    answer = '{"status":"success","data":{"resultType":"scalar","result":[1000.5,"1000.5"]}}'
    assert as_time(answer) == 1000 * NS_PER_SECOND + NS_PER_SECOND // 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<html>", "not a response of the query API"),
        ('{"status":"error","error":"parse error"}', "returned error: parse error"),
        ('{"status":"success","data":{"result":[1,"1"]}}', "query API .*: Expected `object`"),
    ],
)
def test_says_what_is_wrong_with_an_answer(answer: str, reason: str) -> None:
    with pytest.raises(SensorError, match=reason):
        as_range(answer, lambda t: t)


METRIC = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


@pytest.mark.parametrize(
    "label", ["pod", "container", "namespace", "exported_pod", "job", "vgpu", "anything"]
)
def test_a_gpu_listed_once_for_each_user_is_one_gpu(label: str) -> None:
    page = "".join(f'{METRIC}{{gpu="0",UUID="GPU-a",{label}="{name}"}} 600\n' for name in "abcd")
    (point,) = points(page, METRIC, 7)
    assert (point.device, point.value) == ("GPU-a", 600.0)


def test_of_readings_of_one_gpu_that_differ_the_newest_counts_and_blanks_do_not() -> None:
    values = ("600", "0", "700", "9223372036854775794", "NaN")
    page = "".join(f'{METRIC}{{UUID="GPU-a",pod="{i}"}} {value}\n' for i, value in enumerate(values))
    assert [point.value for point in points(page, METRIC, 7)] == [700.0]


def test_a_gpu_scraped_twice_by_a_server_is_one_gpu() -> None:
    series = [
        f'{{"metric":{{"UUID":"GPU-a","instance":"{host}"}},"values":[[1000,"5"]]}}'
        for host in ("a:1", "b:1")
    ]
    answer = f'{{"status":"success","data":{{"result":[{",".join(series)}]}}}}'
    assert [p.value for p in as_range(answer, lambda t: t)] == [5.0]


def test_gpus_of_two_hosts_that_have_no_uuid_are_two() -> None:
    page = "".join(f'{METRIC}{{gpu="0",Hostname="{host}"}} 600\n' for host in "ab")
    assert [point.device for point in points(page, METRIC, 7)] == ["a/0", "b/0"]


def test_series_of_a_device_that_is_not_named_are_its_parts() -> None:
    page = 'watts{sensor="1",job="a"} 5\nwatts{sensor="2",job="a"} 5\nwatts{sensor="2",job="b"} 5\n'
    assert [(point.device, point.value) for point in points(page, "watts", 7)] == [("device0", 10.0)]


def test_a_gpu_in_mig_mode_is_left_out_beside_a_whole_one() -> None:
    page = f'{METRIC}{{UUID="GPU-a",GPU_I_ID="1"}} 5\n{METRIC}{{UUID="GPU-b"}} 7\n'
    assert [(point.device, point.value) for point in points(page, METRIC, 7)] == [("GPU-b", 7.0)]


def test_a_line_that_cannot_be_read_does_not_hide_the_others() -> None:
    page = f'{{{{{{ 1\n{METRIC}{{UUID="GPU-a"\n{METRIC}{{UUID="GPU-b"}} 7\nother{{ 3\n'
    assert [point.device for point in points(page, METRIC, 7)] == ["GPU-b"]
