"""A real Prometheus server that scrapes an exporter; its raw samples, on its own clock, against truth."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from proxy.clock import now_ns
from proxy.core.energy.energy_series import EnergySeries
from proxy.energy.source import SensorError
from proxy.energy.sources.prometheus import PrometheusSource
from proxy.units import NS_PER_SECOND
from tests.e2e.serving import free_port
from tests.timing import PATIENCE_SECONDS

WATTS = 250.0
NAME = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on PATH")

CONFIG = """
global: {scrape_interval: 1s}
scrape_configs: [{job_name: dcgm, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
"""


class Exporter(BaseHTTPRequestHandler):
    """An energy counter of a constant load, as DCGM's exporter shows it."""

    def do_GET(self) -> None:
        millijoules = round(WATTS * 1000 * now_ns() / NS_PER_SECOND)
        page = f'# TYPE {NAME} counter\n{NAME}{{gpu="0",UUID="GPU-a",modelName="H100"}} {millijoules}\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Return the query URL of a Prometheus server that scrapes the exporter each second."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as exporter:
        Thread(target=exporter.serve_forever, daemon=True).start()
        (tmp_path / "p.yml").write_text(CONFIG % exporter.server_address[1])
        port = free_port()
        command = [
            "prometheus",
            f"--config.file={tmp_path / 'p.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield f"http://127.0.0.1:{port}/api/v1/query"
            finally:
                process.terminate()
        exporter.shutdown()


def test_its_samples_are_energy_on_our_clock(server: str) -> None:
    source = PrometheusSource(server)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            (found,) = source.open()
            break
        except SensorError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert (found.device.id, found.device.name) == ("GPU-a", "H100")
    series = EnergySeries()
    stamps: list[int] = []
    while len(stamps) < 5 and time.monotonic() < deadline:
        for sample in source.read():
            series.feed(sample)
            stamps.append(sample.t_ns)
            assert sample.energy_mj is not None
            assert abs(sample.energy_mj / 1000 - WATTS * sample.t_ns / NS_PER_SECOND) < WATTS * 0.1
        time.sleep(0.5)
    source.close()
    assert len(stamps) >= 5
    seconds = (stamps[-1] - stamps[0]) / NS_PER_SECOND
    assert series.joules_at(stamps[-1]) == pytest.approx(WATTS * seconds, rel=0.05)


def test_a_rejected_query_is_reported_with_the_message_of_the_server(server: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            httpx.get(server.replace("/api/v1/query", "/-/ready"), timeout=1).raise_for_status()
            break
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    source = PrometheusSource(f"{server}#no_such_metric=j")
    with pytest.raises(SensorError, match="has none of no_such_metric"):
        source.open()
    source.close()
