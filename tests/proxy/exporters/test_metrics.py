import re
from typing import Any

import msgspec
import pytest

from proxy.exporters.metrics import (
    REQUEST_METRICS,
    STATE_METRICS,
    Observations,
    RequestMetric,
    Snapshot,
    all_metrics,
)
from proxy.schema import DeviceAccount
from tests.fakes.finished import RECORD, finished


def observed(name: str, **changes: Any) -> Observations:
    """Return what the named metric takes from a record with some fields replaced."""
    (one,) = [one for one in REQUEST_METRICS if one.metric.name == name]
    return list(one.observe(finished(msgspec.structs.replace(RECORD, **changes))))


def test_names_are_unique_and_follow_the_conventions_of_prometheus() -> None:
    metrics = all_metrics()
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert re.fullmatch(r"jouleproxy_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.type in {"counter", "untyped"}), metric.name
        assert bool(metric.buckets) == (metric.type == "histogram")
        assert list(metric.buckets) == sorted(metric.buckets)
        assert metric.help.endswith(".")


@pytest.mark.parametrize("one", REQUEST_METRICS, ids=lambda one: one.metric.name)
def test_each_observation_has_a_value_for_each_label(one: RequestMetric) -> None:
    record = msgspec.structs.replace(RECORD, unknown=None)
    for labels, _amount in one.observe(finished(record)):
        assert len(labels) == len(one.metric.labels)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("jouleproxy_request_joules_total", {"joules": None}),
        ("jouleproxy_request_joules", {"joules": None}),
        ("jouleproxy_request_joules", {"unknown": "before_first_sample"}),
        ("jouleproxy_joules_per_output_token", {"output_tokens": 0}),
        ("jouleproxy_joules_per_output_token", {"output_tokens": None}),
        ("jouleproxy_tokens_total", {"prompt_tokens": None, "output_tokens": None}),
        ("jouleproxy_ttft_seconds", {"ttft_s": None}),
        ("jouleproxy_tpot_seconds", {"output_tokens": 1}),
        ("jouleproxy_tpot_seconds", {"duration_s": None}),
    ],
)
def test_a_value_that_is_not_known_or_not_defined_is_no_observation(
    name: str, changes: dict[str, Any]
) -> None:
    assert observed(name, **changes) == []


def test_time_per_output_token_excludes_the_first_token() -> None:
    found = observed("jouleproxy_tpot_seconds", ttft_s=1.0, duration_s=3.0, output_tokens=5)
    assert found == [((RECORD.model,), 0.5)]


def test_state_metrics_omit_what_a_device_does_not_report() -> None:
    account = DeviceAccount(device="gpu0", requests_joules=3.0, idle_joules=1.0, unattributed_joules=0.5)
    now = Snapshot([account], {"b": 2}, 4, {"otlp": 1}, {"b": False})
    shown = {one.metric.name: list(one.read(now)) for one in STATE_METRICS}
    assert shown == {
        "jouleproxy_device_joules_total": [
            (("gpu0", "requests"), 3.0),
            (("gpu0", "idle"), 1.0),
            (("gpu0", "unattributed"), 0.5),
        ],
        "jouleproxy_device_watts": [],
        "jouleproxy_sample_age_seconds": [],
        "jouleproxy_requests_in_flight": [(("b",), 2)],
        "jouleproxy_backend_up": [(("b",), 0.0)],
        "jouleproxy_events_dropped_total": [((), 4)],
        "jouleproxy_exporter_failures_total": [(("otlp",), 1)],
    }
