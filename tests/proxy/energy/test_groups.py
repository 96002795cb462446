import pytest

from proxy.config import Backend, ConfigError
from proxy.core.events import Device
from proxy.energy.groups import devices_by_backend

DEVICES = (
    Device("gpu0", uuid="GPU-aa"),
    Device("gpu1", uuid="GPU-bb"),
    Device("cpu0", kind="host"),
)


def test_a_backend_that_names_none_has_all_gpus_and_no_host() -> None:
    found = devices_by_backend([Backend("http://a", "a")], DEVICES)
    assert found == {"a": ("gpu0", "gpu1")}


def test_several_devices_for_one_backend_and_several_backends_on_one() -> None:
    backends = [
        Backend("http://a", "a", devices=("0", "GPU-bb")),
        Backend("http://b", "b", devices=("gpu1", "1")),
    ]
    assert devices_by_backend(backends, DEVICES) == {"a": ("gpu0", "gpu1"), "b": ("gpu1",)}


def test_host_energy_is_charged_only_when_asked() -> None:
    backend = Backend("http://a", "a", devices=("1",))
    assert devices_by_backend([backend], DEVICES, host=True) == {"a": ("gpu1", "cpu0")}
    assert devices_by_backend([backend], DEVICES) == {"a": ("gpu1",)}


def test_a_device_that_was_not_found_is_an_error_that_lists_those_found() -> None:
    with pytest.raises(ConfigError, match=r"backend a: device '7' matches 0 .*gpu0 \(GPU-aa\)"):
        devices_by_backend([Backend("http://a", "a", devices=("7",))], DEVICES)
    with pytest.raises(ConfigError, match="matches 2"):
        devices_by_backend([Backend("http://a", "a", devices=("GPU-",))], DEVICES)


def test_without_any_device_requests_have_none() -> None:
    assert devices_by_backend([Backend("http://a", devices=("0",))], ()) == {"http://a": ()}
