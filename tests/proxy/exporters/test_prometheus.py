from dataclasses import replace

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from proxy.exporters.base import Finished
from proxy.exporters.labels import IDLE_NS, LABEL_LIMIT, OTHER
from proxy.exporters.metrics import Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from proxy.schema import DeviceAccount, Parts
from tests.fakes.finished import RECORD, TRACE, finished


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


def test_each_bucket_has_an_exemplar_and_a_label_value_is_checked_anew_after_its_slot_was_lost() -> None:
    metrics = exporter()
    for joules, trace in ((20.0, "a" * 32), (21.0, "b" * 32), (20_000.0, "c" * 32)):
        metrics.export(finished(msgspec.structs.replace(RECORD, joules=joules, trace_id=trace)))
    page, _ = metrics.render("application/openmetrics-text; version=1.0.0")
    families = {f.name: f for f in openmetrics(page.decode())}  # type: ignore[no-untyped-call]
    buckets = families["jouleproxy_request_joules"].samples
    shown = {s.exemplar.labels["trace_id"] for s in buckets if s.exemplar}
    assert shown == {"a" * 32, "c" * 32}, "one a second is enough for each bucket"
    metrics._drop("model", "m")
    metrics.export(finished())
    assert samples(metrics.render("")[0])["jouleproxy_tokens_total['m', 'output']"] == RECORD.output_tokens


def test_unknown_is_counted_as_unknown_not_as_zero() -> None:
    metrics = exporter()
    metrics.export(finished(msgspec.structs.replace(RECORD, joules=None, unknown="no_samples")))
    found = samples(metrics.render("")[0])
    assert found["jouleproxy_unknown_energy_requests_total['no_samples']"] == 1
    assert not [name for name in found if name.startswith("jouleproxy_request_joules")]


def test_joules_of_no_known_part_are_counted_as_unseparated() -> None:
    metrics = exporter()
    parts = Parts(static=None, prefill=5.0, decode=None, context=2.0, unseparated=13.0)
    metrics.export(finished(msgspec.structs.replace(RECORD, parts=parts)))
    found = samples(metrics.render("")[0])
    joules = {k: v for k, v in found.items() if k.startswith("jouleproxy_request_joules_total")}
    assert sum(joules.values()) == 20.0
    assert [v for k, v in joules.items() if "'unseparated'" in k] == [13.0]
    assert not [k for k in joules if "'static'" in k or "'decode'" in k]


def test_labels_are_bounded() -> None:
    metrics = exporter()
    for number in range(LABEL_LIMIT + 5):
        metrics.export(finished(msgspec.structs.replace(RECORD, tenant=f"t{number}", parts=None)))
    found = samples(metrics.render("")[0])
    assert found[f"jouleproxy_request_joules_total{sorted(['m', 'chat', 'b', OTHER, 'all'])}"] == 100.0
    assert found["jouleproxy_labels_limited_total['tenant']"] == 5


def test_series_are_bounded_and_lose_no_joule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.exporters.prometheus.SERIES_LIMIT", 10)
    metrics = exporter()
    for number in range(20):
        metrics.export(finished(msgspec.structs.replace(RECORD, model=f"m{number}", parts=None)))
    found = samples(metrics.render("")[0])
    joules = [v for k, v in found.items() if k.startswith("jouleproxy_request_joules_total")]
    assert (len(joules), sum(joules)) == (11, 400.0)
    assert found["jouleproxy_labels_limited_total['series']"] == 10


def test_fields_that_could_not_be_read_are_counted_by_name() -> None:
    metrics = exporter()
    given = finished()
    end = msgspec.structs.replace(given.end, unread=("request.max_tokens", "response.usage"))
    for _ in range(2):
        metrics.export(replace(given, end=end))
    found = samples(metrics.render("")[0])
    assert found["jouleproxy_unread_fields_total['request.max_tokens']"] == 2
    assert found["jouleproxy_unread_fields_total['response.usage']"] == 2


def refused(number: int, status: int | None = 404) -> Finished:
    record = msgspec.structs.replace(
        RECORD, model=f"bogus{number}", tenant=f"t{number}", status=status, output_tokens=None, joules=None
    )
    return replace(finished(record), first_output_ns=None)


@pytest.mark.parametrize("status", [404, 503, None])
def test_refused_requests_take_no_label_from_models_that_are_served(status: int | None) -> None:
    metrics = exporter()
    for number in range(LABEL_LIMIT + 10):
        metrics.export(refused(number, status))
    metrics.export(finished())
    found = samples(metrics.render("")[0])
    assert found["jouleproxy_tokens_total['m', 'output']"] == RECORD.output_tokens
    assert not [name for name in found if "bogus" in name]
    assert "jouleproxy_labels_limited_total['model']" not in found


def test_a_model_that_is_long_gone_gives_its_label_to_a_new_one_and_no_joule_is_lost() -> None:
    metrics = exporter()
    for number in range(LABEL_LIMIT):
        metrics.export(finished(msgspec.structs.replace(RECORD, model=f"old{number}", parts=None)))
    early = msgspec.structs.replace(RECORD, model="early", parts=None)
    metrics.export(finished(early))
    metrics.export(
        finished(msgspec.structs.replace(early, model="new", start_unix_ns=RECORD.start_unix_ns + IDLE_NS))
    )
    found = samples(metrics.render("")[0])
    assert found["jouleproxy_tokens_total['new', 'output']"] == RECORD.output_tokens
    assert "jouleproxy_tokens_total['old0', 'output']" not in found
    assert "jouleproxy_tokens_total['old1', 'output']" in found
    joules = [v for k, v in found.items() if k.startswith("jouleproxy_request_joules_total")]
    assert sum(joules) == 20.0 * (LABEL_LIMIT + 2)
