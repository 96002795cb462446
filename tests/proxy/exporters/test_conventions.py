from dataclasses import replace

import msgspec
import pytest

from proxy.exporters import conventions
from proxy.exporters.base import Finished
from proxy.schema import Parts, RequestEnergy
from tests.fakes.finished import RECORD, finished


def record(**changes: object) -> RequestEnergy:
    return msgspec.structs.replace(RECORD, **changes)


def ended(given: Finished, **changes: object) -> Finished:
    return replace(given, end=msgspec.structs.replace(given.end, **changes))


@pytest.mark.parametrize(
    ("route", "operation"),
    [
        ("chat", "chat"),
        ("completions", "text_completion"),
        ("embeddings", "embeddings"),
        ("images", "generate_content"),
    ],
)
def test_the_operation_of_a_route_is_the_conventions_name(route: str, operation: str) -> None:
    assert conventions.operation_of(record(route=route)) == operation


def test_tokens_and_joules_are_on_the_call_and_not_on_the_request() -> None:
    given = finished()
    outer = conventions.request_attributes(given)
    assert outer == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "jouleproxy.request_id": "r",
    }
    call = {**conventions.call_attributes(given, None), **conventions.energy_attributes(given.record)}
    assert (call["gen_ai.usage.input_tokens"], call["gen_ai.usage.output_tokens"]) == (10, 5)
    assert (call["energy.joules"], call["energy.joules_per_output_token"]) == (20.0, 4.0)


def test_an_unknown_value_is_no_attribute() -> None:
    attributes = conventions.energy_attributes(record(joules=None, parts=None, unknown="no_samples"))
    assert attributes["energy.unknown"] == "no_samples"
    assert not {"energy.joules", "energy.static.joules", "energy.joules_per_output_token"} & attributes.keys()
    call = conventions.call_attributes(finished(record(prompt_tokens=None, ttft_s=None)), None)
    assert not {"gen_ai.usage.input_tokens", "gen_ai.response.time_to_first_chunk"} & call.keys()


def test_joules_per_output_token_are_undefined_without_output() -> None:
    assert "energy.joules_per_output_token" not in conventions.energy_attributes(record(output_tokens=0))


def test_unseparated_energy_is_named_only_if_there_is_any() -> None:
    parts = Parts(static=None, prefill=5.0, decode=None, context=2.0, unseparated=13.0)
    attributes = conventions.energy_attributes(record(parts=parts))
    assert attributes["energy.unseparated.joules"] == 13.0
    assert "energy.static.joules" not in attributes
    assert "energy.unseparated.joules" not in conventions.energy_attributes(RECORD)


def test_the_server_of_the_request_precedes_that_of_the_settings() -> None:
    given = finished()
    assert conventions.call_attributes(given, ("h", 8000))["server.address"] == "h"
    start = msgspec.structs.replace(given.start, server_address="real", server_port=1)
    attributes = conventions.call_attributes(replace(given, start=start), ("h", 8000))
    assert (attributes["server.address"], attributes["server.port"]) == ("real", 1)


def test_metrics_have_the_limited_models_and_the_error() -> None:
    given = ended(finished(), error_type="upstream_reset")
    attributes = conventions.metric_attributes(given, None, ("other", None))
    assert attributes["gen_ai.request.model"] == "other"
    assert "gen_ai.response.model" not in attributes
    assert attributes["error.type"] == "upstream_reset"


def test_phases_share_the_time_of_the_call_and_leave_the_static_part_to_it() -> None:
    assert conventions.phases_of(finished()) == [("prefill", 100, 200, 5.0), ("decode", 200, 400, 5.0)]
    unknown = record(parts=Parts(static=1.0, prefill=None, decode=2.0, context=None, unseparated=17.0))
    assert [joules for *_, joules in conventions.phases_of(finished(unknown))] == [None, None]


def test_an_image_has_one_phase_and_a_response_without_output_none() -> None:
    images = finished(record(route="images"))
    assert conventions.phases_of(images) == [("denoise", 100, 400, 20.0)]
    assert conventions.phases_of(replace(finished(), first_output_ns=None)) == []


def test_cpus_and_memory_of_a_host_are_one_cpu() -> None:
    assert conventions.hardware_attributes("cpu0", None, "host") == {"hw.id": "cpu0", "hw.type": "cpu"}
    assert conventions.hardware_attributes("gpu0", "H100", "gpu")["hw.type"] == "gpu"
