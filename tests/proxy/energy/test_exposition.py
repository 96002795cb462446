import pytest

from proxy.energy.exposition import as_range, as_time, points
from proxy.energy.meter import SensorError
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
        ("<html>", "not an answer of the query API"),
        ('{"status":"error","error":"parse error"}', "answers error: parse error"),
        ('{"status":"success","data":{"result":[1,"1"]}}', "as asked: Expected `object`"),
    ],
)
def test_says_what_is_wrong_with_an_answer(answer: str, reason: str) -> None:
    with pytest.raises(SensorError, match=reason):
        as_range(answer, lambda t: t)
