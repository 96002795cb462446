"""Exporters on one final record: spans at a real receiver, a scrape, a file."""

from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from proxy.clock import WallAnchor
from proxy.config import ConfigError
from proxy.core.channel import Closed, Opened
from proxy.core.events import Arrive, End
from proxy.exporters.base import Exporters, Finished
from proxy.exporters.otel import otel_exporter, spans_of
from proxy.exporters.prometheus import LABEL_LIMIT, OTHER, PrometheusExporter, Snapshot
from proxy.exporters.store import LedgerStore
from proxy.schema import DeviceAccount, Parts, RequestEnergy, decode_request
from tests.fakes.otlp import attributes, receiver

TRACE, SERVER, CLIENT, PARENT = "a" * 32, "b" * 16, "c" * 16, "d" * 16
ANCHOR = WallAnchor(0, 1_000)
RECORD = RequestEnergy(
    request_id="r",
    trace_id=TRACE,
    model="m",
    backend="b",
    tenant="t",
    status=200,
    duration_s=3.0,
    ttft_s=1.0,
    prompt_tokens=10,
    output_tokens=5,
    joules=20.0,
    joules_low=18.0,
    joules_high=22.0,
    parts=Parts(static=10.0, prefill=5.0, decode=3.0, context=2.0),
    devices={"gpu0": 20.0},
    source="nvml",
    final=True,
)


def finished(record: RequestEnergy = RECORD, *, sampled: bool = True) -> Finished:
    opened = Opened(
        1,
        Arrive(100, "r", "chat", "m"),
        path="/v1/chat/completions",
        trace_id=record.trace_id,
        server_span_id=SERVER,
        client_span_id=CLIENT,
        parent_span_id=PARENT,
        trace_sampled=sampled,
        max_tokens=7,
        received_ns=90,
    )
    closed = Closed(1, End(400, "r", 200), response_id="c1", finish_reasons=("stop",))
    return Finished(record, opened, closed, 200, ANCHOR)


def test_spans_reach_a_receiver_with_the_ids_the_backend_saw() -> None:
    with receiver() as server:
        exporter = otel_exporter(server.url, {})
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
    assert "energy.joules" not in attributes(outer), "joules on both would be counted twice"
    assert attributes(spans["prefill"])["energy.joules"] == 5.0
    assert attributes(spans["decode"])["energy.joules"] == 5.0


def test_unknown_joules_are_no_attribute() -> None:
    record = msgspec.structs.replace(RECORD, joules=None, parts=None, unknown="no_samples")
    call = spans_of(finished(record), Resource.create())[1]
    assert call.attributes is not None
    assert "energy.joules" not in call.attributes
    assert call.attributes["energy.unknown"] == "no_samples"


def test_without_an_endpoint_there_are_no_spans() -> None:
    assert otel_exporter(None, {}) is None


def exporter() -> PrometheusExporter:
    account = DeviceAccount(device="gpu0", requests_joules=3.0, idle_joules=1.0, watts=99.0)
    return PrometheusExporter(lambda: Snapshot([account], {"b": 2}, 4))


def samples(page: bytes) -> dict[str, float]:
    return {f"{s.name}{sorted(s.labels.values())}": s.value for f in plain(page.decode()) for s in f.samples}


def test_a_scrape_shows_records_and_accounts_and_changes_nothing() -> None:
    metrics = exporter()
    metrics.export(finished())
    page, kind = metrics.render("")
    assert kind.startswith("text/plain")
    assert samples(page) == samples(metrics.render("")[0])
    found = samples(page)
    joules = {k: v for k, v in found.items() if k.startswith("jouleproxy_request_joules_total")}
    assert sum(joules.values()) == 20.0
    assert found["jouleproxy_device_joules_total['gpu0', 'idle']"] == 1.0
    assert found["jouleproxy_requests_in_flight['b']"] == 2
    assert found["jouleproxy_events_dropped_total[]"] == 4
    assert found["jouleproxy_tpot_seconds_sum['m']"] == 0.5


def test_openmetrics_parses_and_has_exemplars() -> None:
    metrics = exporter()
    metrics.export(finished())
    page, kind = metrics.render("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in kind
    families = {f.name: f for f in openmetrics(page.decode())}  # type: ignore[no-untyped-call]
    buckets = families["jouleproxy_request_joules"].samples
    assert {"trace_id": TRACE} in [s.exemplar.labels for s in buckets if s.exemplar]


def test_unknown_is_counted_as_unknown_not_as_zero() -> None:
    metrics = exporter()
    metrics.export(finished(msgspec.structs.replace(RECORD, joules=None, unknown="no_samples")))
    found = samples(metrics.render("")[0])
    assert found["jouleproxy_unknown_energy_requests_total['no_samples']"] == 1
    assert not [name for name in found if name.startswith("jouleproxy_request_joules")]


def test_labels_are_bounded() -> None:
    metrics = exporter()
    for number in range(LABEL_LIMIT + 5):
        metrics.export(finished(msgspec.structs.replace(RECORD, tenant=f"t{number}", parts=None)))
    found = samples(metrics.render("")[0])
    assert found[f"jouleproxy_request_joules_total{sorted(['m', 'chat', 'b', OTHER, 'all'])}"] == 100.0


def test_the_ledger_file_begins_on_a_fresh_line_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"request_id": "to')
    store = LedgerStore(path)
    store.export(finished())
    store.close()
    torn, line = path.read_bytes().splitlines()
    assert torn == b'{"request_id": "to'
    assert decode_request(line) == RECORD


def test_a_ledger_that_cannot_be_written_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        LedgerStore(tmp_path / "nowhere" / "l")


def test_a_failing_exporter_hurts_no_other() -> None:
    class Broken:
        name = "broken"

        def export(self, finished: Finished) -> None:
            raise RuntimeError(finished.record.request_id)

        def close(self) -> None:
            raise RuntimeError

    metrics = exporter()
    both = Exporters([Broken(), metrics])
    both.export(finished())
    both.close()
    assert both.failures == {"broken": 2}
    assert "jouleproxy_ttft_seconds_count['m']" in samples(metrics.render("")[0])
