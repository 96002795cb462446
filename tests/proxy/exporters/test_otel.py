import socket
from dataclasses import replace

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource

from proxy.exporters import otel
from proxy.exporters.otel import otel_exporter, spans_of
from proxy.schema import DeviceAccount, Parts
from tests.fakes.finished import CLIENT, PARENT, RECORD, SERVER, TRACE, finished
from tests.fakes.otlp import attributes, receiver


def test_spans_reach_a_receiver_with_the_ids_the_backend_saw() -> None:
    with receiver() as server:
        exporter = otel_exporter(server.url, {"b": ("gpu.example", 8000)}, environ={})
        assert exporter is not None
        exporter.export(finished())
        exporter.export(finished(sampled=False))
        exporter.close()
        spans = {span.name: span for span in server.spans}
    assert len(server.spans) == 4
    outer, call = spans["POST /v1/chat/completions"], spans["chat m"]
    assert (outer.span_id.hex(), outer.parent_span_id.hex()) == (SERVER, PARENT)
    assert (call.span_id.hex(), call.parent_span_id.hex(), call.trace_id.hex()) == (CLIENT, SERVER, TRACE)
    assert (call.start_time_unix_nano, call.end_time_unix_nano) == (1_100, 1_400)
    found = attributes(call)
    assert found["energy.joules"] == 20.0
    assert found["energy.joules_per_output_token"] == 4.0
    assert found["gen_ai.usage.output_tokens"] == 5
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["server.address"], found["server.port"]) == ("gpu.example", 8000)
    assert "energy.joules" not in attributes(outer), "joules on both would be counted twice"
    assert attributes(spans["prefill"])["energy.joules"] == 5.0
    assert attributes(spans["decode"])["energy.joules"] == 5.0


def test_unknown_joules_are_no_attribute() -> None:
    record = msgspec.structs.replace(RECORD, joules=None, parts=None, unknown="no_samples")
    call = spans_of(finished(record), Resource.create())[1]
    assert call.attributes is not None
    assert "energy.joules" not in call.attributes
    assert call.attributes["energy.unknown"] == "no_samples"


def test_parts_that_are_not_known_are_no_attribute_and_their_phase_has_no_joules() -> None:
    parts = Parts(static=None, prefill=5.0, decode=None, context=2.0, unseparated=13.0)
    spans = spans_of(finished(msgspec.structs.replace(RECORD, parts=parts)), Resource.create())
    call, phases = dict(spans[1].attributes or {}), {span.name: dict(span.attributes or {}) for span in spans}
    assert "energy.decode.joules" not in call
    assert call["energy.unseparated.joules"] == 13.0
    assert phases["prefill"] == {"energy.joules": 5.0}
    assert phases["decode"] == {}


def test_without_an_endpoint_there_are_no_spans() -> None:
    assert otel_exporter(None, environ={}) is None


def test_metrics_have_the_conventions_names_and_units() -> None:
    with receiver() as server:
        exporter = otel_exporter(server.url, {"b": ("gpu.example", 8000)}, {"host": "host"}, {})
        assert exporter is not None
        exporter.observe(
            [
                DeviceAccount(device="gpu0", name="H100", measured_joules=50.0, watts=99.0),
                DeviceAccount(device="host", measured_joules=5.0),
            ]
        )
        exporter.export(finished())
        exporter.export(finished(msgspec.structs.replace(RECORD, ttft_s=None, output_tokens=None)))
        exporter.close()
        told = server.metrics
    assert {name: metric.unit for name, metric in told.items()} == {
        "gen_ai.server.request.duration": "s",
        "gen_ai.server.time_to_first_token": "s",
        "gen_ai.server.time_per_output_token": "s",
        "gen_ai.client.token.usage": "{token}",
        "hw.energy": "J",
        "hw.power": "W",
    }
    (duration,) = told["gen_ai.server.request.duration"].histogram.data_points
    assert (duration.count, duration.sum) == (2, 6.0)
    found = attributes(duration)
    assert (found["server.address"], found["server.port"]) == ("gpu.example", 8000)
    assert (found["gen_ai.operation.name"], found["gen_ai.request.model"]) == ("chat", "m")
    (tpot,) = told["gen_ai.server.time_per_output_token"].histogram.data_points
    assert (tpot.count, tpot.sum) == (1, 0.5)
    tokens = told["gen_ai.client.token.usage"].histogram.data_points
    assert {attributes(p)["gen_ai.token.type"]: (p.count, p.sum) for p in tokens} == {
        "input": (2, 20.0),
        "output": (1, 5.0),
    }
    assert told["hw.energy"].sum.is_monotonic
    energy = {attributes(p)["hw.id"]: p for p in told["hw.energy"].sum.data_points}
    assert (energy["gpu0"].as_double, energy["host"].as_double) == (50.0, 5.0)
    assert attributes(energy["gpu0"]) == {"hw.id": "gpu0", "hw.name": "H100", "hw.type": "gpu"}
    assert attributes(energy["host"])["hw.type"] == "cpu"
    (power,) = told["hw.power"].gauge.data_points
    assert (power.as_double, attributes(power)["hw.id"]) == (99.0, "gpu0")


def test_a_picture_has_one_phase_with_all_its_joules() -> None:
    spans = spans_of(finished(msgspec.structs.replace(RECORD, route="images")), Resource.create())
    assert [span.name for span in spans[1:]] == ["generate_content m", "denoise"]
    assert spans[1].attributes is not None
    assert spans[1].attributes["gen_ai.output.type"] == "image"
    assert spans[2].attributes == {"energy.joules": 20.0}


def test_a_collector_that_is_away_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert otel._CLOSE_SECONDS < 15.0, "the supervisor waits 15 s for the meter"
    monkeypatch.setattr(otel, "_CLOSE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    exporter = otel_exporter(url, environ={})
    assert exporter is not None
    for _ in range(2_000):
        exporter.export(finished())
    exporter.close()
    assert "the collector does not respond" in caplog.text


def test_names_of_models_on_metrics_and_in_names_of_spans_are_bounded() -> None:
    with receiver() as server:
        exporter = otel_exporter(server.url, {}, {}, {})
        assert exporter is not None
        for number in range(210):
            bogus = msgspec.structs.replace(RECORD, model=f"bogus{number}", status=404, output_tokens=None)
            exporter.export(replace(finished(bogus), first_output_ns=None))
        for number in range(210):
            exporter.export(finished(msgspec.structs.replace(RECORD, model="m" * 400 + str(number))))
            exporter.export(finished(msgspec.structs.replace(RECORD, model=f"m{number}")))
        exporter.close()
        told = server.metrics
    models = {
        attributes(p)["gen_ai.request.model"]
        for p in told["gen_ai.server.request.duration"].histogram.data_points
    }
    assert not [model for model in models if "bogus" in str(model)]
    assert {"m0", "m198", "m" * 200, "other"} <= models
    assert len(models) == 201
