import gzip

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.fakes.otlp import attributes, receiver


def test_it_keeps_what_the_real_exporter_sends() -> None:
    with receiver() as server:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{server.url}/v1/traces")))
        span = provider.get_tracer("t").start_span("chat m")
        span.set_attributes({"energy.joules": 2.5, "energy.devices": ["gpu0"]})
        span.end()
        provider.shutdown()
        assert httpx.post(f"{server.url}/v1/logs", content=gzip.compress(b"x")).status_code == 200
    assert [s.name for s in server.spans] == ["chat m"]
    assert attributes(server.spans[0]) == {"energy.joules": 2.5, "energy.devices": ["gpu0"]}
