import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import ConfigError
from proxy.exporters.otel_settings import read
from tests.fakes.otlp import receiver

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = {BASE: "http://c:4318"}
START = """
import os, sys
from proxy.meter.process import _otel
exporter = _otel(sys.argv[1] if len(sys.argv) > 1 else None, {}, {})
print("STARTED", exporter is not None)
if exporter is not None:
    from tests.fakes.finished import finished
    exporter.export(finished())
    exporter.close()
"""


def start(*args: str, **variables: str) -> tuple[str, str]:
    """Set up the exporter in a process of its own: what it printed, and its error output."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", START, *args]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, env={**environ, **variables}, capture_output=True, text=True, check=True, cwd=root
    )
    return done.stdout, done.stderr


def test_an_option_names_the_base_url() -> None:
    settings = read("http://c:4318/", {})
    assert (settings.traces, settings.metrics) == ("http://c:4318/v1/traces", "http://c:4318/v1/metrics")
    assert settings.notices == ()


def test_the_path_of_a_signal_is_no_part_of_the_base_url() -> None:
    settings = read("http://c:4318/otlp/v1/traces", {})
    assert (settings.traces, settings.metrics) == (
        "http://c:4318/otlp/v1/traces",
        "http://c:4318/otlp/v1/metrics",
    )
    assert len(settings.notices) == 1


@pytest.mark.parametrize(
    "url", ["localhost:4317", "grpc://c:4317", "http://", "c", "", "http://c:port", "http://a b"]
)
def test_an_option_that_is_no_url_of_otlp_over_http_ends_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"otlp: .* must be http://HOST"):
        read(url, {})


@pytest.mark.parametrize("url", ["localhost:4317", "grpc://c:4317", "http://"])
def test_a_variable_that_is_no_url_is_one_line(url: str) -> None:
    settings = read(None, {BASE: url})
    assert (settings.traces, settings.metrics) == (None, None)
    assert len(set(settings.notices)) == 1
    assert settings.notices[0].startswith(BASE)


def test_each_signal_has_its_own_endpoint() -> None:
    settings = read(None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x", BASE: "http://c/y"})
    assert (settings.traces, settings.metrics) == ("http://t/x", "http://c/y/v1/metrics")


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({}, "jouleproxy"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine", "OTEL_SERVICE_NAME": "yours"}, "yours"),
    ],
)
def test_the_service_is_named_by_the_standard_variables(variables: dict[str, str], service: str) -> None:
    assert read(None, {**HERE, **variables}).service == service


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, False, False),
        ({"OTEL_SDK_DISABLED": "false"}, True, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, False, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, False, True),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            True,
            False,
        ),
    ],
)
def test_signals_are_exported_as_asked(variables: dict[str, str], traces: bool, metrics: bool) -> None:
    settings = read(None, {**HERE, **variables})
    assert (settings.traces is not None, settings.metrics is not None) == (traces, metrics)
    said = any(value in {"true", "console", "grpc", "http/json"} for value in variables.values())
    assert len(settings.notices) == said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1e3"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 30),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/absent.pem"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_PYTHON_CONTEXT", "absent"),
        ("OTEL_TRACES_SAMPLER", "absent"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "absent"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_and_not_seen_by_the_sdk(name: str, value: str) -> None:
    settings = read(None, {**HERE, name: value})
    (line,) = settings.notices
    assert line.startswith(name)
    assert settings.variables is not None
    assert name not in settings.variables
    assert settings.traces is not None


def test_a_queue_smaller_than_a_batch_makes_batches_smaller() -> None:
    settings = read(None, {**HERE, "OTEL_BSP_MAX_QUEUE_SIZE": "256"})
    assert settings.variables is not None
    assert settings.variables["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == "256"
    assert settings.notices == ()


@pytest.mark.parametrize(("given", "seconds"), [("10000", "10"), ("7", "7"), ("2.5", "2.5")])
def test_a_timeout_is_in_milliseconds_or_seconds(given: str, seconds: str) -> None:
    settings = read(None, {**HERE, "OTEL_EXPORTER_OTLP_TIMEOUT": given})
    assert (settings.variables or {})["OTEL_EXPORTER_OTLP_TIMEOUT"] == seconds


def test_bad_entries_of_a_list_are_counted_and_not_shown() -> None:
    name = "OTEL_EXPORTER_OTLP_HEADERS"
    settings = read(None, {**HERE, name: "secret, api-key=x y,bad key=1,"})
    assert settings.notices == (f"{name}: 2 of 3 entries are not key=value: ignored",)
    assert (settings.variables or {})[name] == "api-key=x y"


def test_empty_variables_are_not_set() -> None:
    assert read(None, {BASE: "", "OTEL_BSP_MAX_QUEUE_SIZE": ""}).variables == {}


def test_no_variable_ends_the_meter_and_good_ones_are_honoured() -> None:
    with receiver() as server:
        out, errors = start(
            OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
            OTEL_RESOURCE_ATTRIBUTES="service.name=mine,bad",
            OTEL_BSP_MAX_QUEUE_SIZE="256",
            OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many",
            OTEL_METRICS_EXEMPLAR_FILTER="some",
            OTEL_PYTHON_METER_PROVIDER="absent",
            OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="absent",
            OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="3",
        )
        names = {span.name for span in server.spans}
        values = {p.value.string_value for span in server.spans for p in span.attributes}
    assert "STARTED True" in out
    assert "POST /v1/chat/completions" in names
    assert max(len(value) for value in values) == 3
    assert errors.count("jouleproxy: OTEL_") == 5
    assert "Traceback" not in errors
