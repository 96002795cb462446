from proxy.exporters.base import Exporters, Finished
from proxy.exporters.metrics import Snapshot
from proxy.exporters.prometheus import PrometheusExporter
from tests.fakes.finished import finished


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
