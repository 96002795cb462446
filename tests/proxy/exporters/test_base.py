import socket
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from proxy.clock import WallAnchor, now_ns
from proxy.config import ConfigError
from proxy.core.channel import Closed, Opened
from proxy.core.events import Arrive, End
from proxy.exporters.base import Exporters, Finished
from proxy.exporters.otel import otel_exporter, spans_of
from proxy.exporters.prometheus import LABEL_LIMIT, OTHER, PrometheusExporter, Snapshot
from proxy.exporters.store import LedgerStore
from proxy.schema import DeviceAccount, Parts, RequestEnergy, decode_request
from tests.fakes.finished import CLIENT, PARENT, RECORD, SERVER, TRACE, finished
from tests.fakes.otlp import attributes, receiver


def test_a_failing_exporter_hurts_no_other() -> None:
    class Broken:
        name = "broken"

        def export(self, finished: Finished) -> None:
            raise RuntimeError(finished.record.request_id)

        def close(self) -> None:
            raise RuntimeError

    metrics = PrometheusExporter(lambda: Snapshot([], {}, 0))
    both = Exporters([Broken(), metrics])
    both.export(finished())
    both.close()
    assert both.failures == {"broken": 2}
    assert b"jouleproxy_ttft_seconds_count" in metrics.render("")[0]
