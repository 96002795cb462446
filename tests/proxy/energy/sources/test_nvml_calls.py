"""Calls for one device, on functions of pynvml that a test replaces; test_nvml.py has a library."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from proxy.energy.source import SensorError
from proxy.energy.sources import nvml_calls

Replace = Callable[..., None]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Replace functions of pynvml by results; an error is raised."""

    def of(result: object) -> Callable[..., object]:
        def function(*_arguments: object) -> object:
            if isinstance(result, Exception):
                raise result
            return result

        return function

    def apply(**results: object) -> None:
        for name, result in results.items():
            monkeypatch.setattr(pynvml, name, of(result))

    return apply


def error(name: str) -> Any:
    return pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{name}"))


@pytest.mark.parametrize(
    ("architecture", "name", "average"),
    [
        (9, "NVIDIA H100", True),
        (7, "NVIDIA A100-SXM4", False),
        (7, "NVIDIA A10", True),
        (6, "Tesla T4", False),
    ],
)
def test_power_usage_is_an_average_on_ampere_and_newer_except_ga100(
    replace: Replace, architecture: int, name: str, average: bool
) -> None:
    replace(nvmlDeviceGetArchitecture=architecture, nvmlDeviceGetName=name)
    assert nvml_calls.is_average(None) is average


def test_a_driver_without_architecture_is_older_than_ampere(replace: Replace) -> None:
    replace(nvmlDeviceGetArchitecture=error("FUNCTION_NOT_FOUND"))
    assert not nvml_calls.is_average(None)


@pytest.mark.parametrize(
    ("limit", "constraints", "watts"),
    [
        (400_000, (100_000, 700_000), 1050.0),
        (400_000, error("NOT_SUPPORTED"), 600.0),
        (error("NOT_SUPPORTED"), error("NOT_SUPPORTED"), None),
        (0, (0, 0xFFFFFFFF), None),
    ],
)
def test_the_largest_power_is_above_the_highest_plausible_limit(
    replace: Replace, limit: object, constraints: object, watts: float | None
) -> None:
    replace(nvmlDeviceGetPowerManagementLimit=limit, nvmlDeviceGetPowerManagementLimitConstraints=constraints)
    assert nvml_calls.max_watts(None) == watts


def test_a_device_in_mig_mode_is_rejected_with_the_remedy(replace: Replace) -> None:
    replace(nvmlDeviceGetMigMode=(pynvml.NVML_DEVICE_MIG_ENABLE, 0))
    with pytest.raises(SensorError, match="nvidia-smi -i 3 -mig 0"):
        nvml_calls.refuse_mig(None, 3)
    replace(nvmlDeviceGetMigMode=error("NOT_SUPPORTED"))
    nvml_calls.refuse_mig(None, 3)


def test_an_empty_ring_buffer_has_no_points_and_another_error_is_raised(replace: Replace) -> None:
    replace(nvmlDeviceGetSamples=error("NOT_FOUND"))
    assert nvml_calls.ring_points(None, 0) == []
    replace(nvmlDeviceGetSamples=error("GPU_IS_LOST"))
    with pytest.raises(pynvml.NVMLError):
        nvml_calls.ring_points(None, 0)


def test_the_error_code_of_a_field_is_raised(replace: Replace) -> None:
    value = SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED, value=SimpleNamespace(uiVal=1))
    replace(nvmlDeviceGetFieldValues=[value])
    assert not nvml_calls.works(nvml_calls.READERS[nvml_calls.INSTANT], None)
    value.nvmlReturn = pynvml.NVML_SUCCESS
    assert nvml_calls.READERS[nvml_calls.INSTANT](None) == 1.0


def test_the_rest_of_a_module_is_never_negative(replace: Replace) -> None:
    values = [
        SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=SimpleNamespace(uiVal=milliwatts))
        for milliwatts in (300, 301)
    ]
    replace(nvmlDeviceGetFieldValues=values)
    assert nvml_calls.host_mw(None) == 0.0


def test_an_error_states_the_remedy_if_one_is_known() -> None:
    assert "modprobe nvidia" in nvml_calls.explain(error("DRIVER_NOT_LOADED"))
    assert "(" not in nvml_calls.explain(error("GPU_IS_LOST"))


def test_utilisation_is_the_newest_by_process_and_empty_without_support(replace: Replace) -> None:
    samples = [
        SimpleNamespace(pid=7, smUtil=20, timeStamp=2),
        SimpleNamespace(pid=7, smUtil=10, timeStamp=1),
    ]
    replace(nvmlDeviceGetProcessUtilization=samples)
    assert nvml_calls.utilisation(None) == {7: 20.0}
    replace(nvmlDeviceGetProcessUtilization=error("NOT_SUPPORTED"))
    assert nvml_calls.utilisation(None) == {}
