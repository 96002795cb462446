import csv

import msgspec

from loadgen.report.csv_export import points_csv, requests_csv
from loadgen.results.records import Distribution
from tests.loadgen.report.test_html_page import measured, run
from tests.loadgen.samples import point, record


def test_points() -> None:
    ttft = Distribution(count=10, mean=0.05, p50=0.04, intervals={"p50": (0.03, 0.06)})
    one = msgspec.structs.replace(measured(2, "nvml"), ttft_seconds=ttft, notes=["a", "b"])
    rows = list(csv.DictReader(points_csv(run(one, point(4))).decode().splitlines()))
    assert [row["concurrency"] for row in rows] == ["2", "4"]
    assert (rows[0]["ttft_seconds.p50"], rows[0]["ttft_seconds.p50_high"]) == ("0.04", "0.06")
    assert (rows[0]["parts_joules.decode"], rows[1]["parts_joules.decode"]) == ("300.0", "")
    assert rows[0]["notes"] == "a; b"
    assert rows[1]["watts"] == ""  # not known is empty, not 0
    assert rows[0]["window_end_seconds"] == "2.0"


def test_requests() -> None:
    rows = list(
        csv.DictReader(
            requests_csv([record(0, first=10**6, end=10**9), record(1, error="x, y")]).decode().splitlines()
        )
    )
    assert (rows[0]["ttft_seconds"], rows[0]["e2e_seconds"], rows[0]["joules"]) == ("0.001", "1.0", "")
    assert rows[1]["error"] == "x, y"
