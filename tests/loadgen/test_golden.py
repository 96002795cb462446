"""The files made from a run directory, byte for byte. ``UPDATE_GOLDEN=1`` writes them again: review them."""

import os
from pathlib import Path

import msgspec
import pytest

from loadgen.config.slo import parse_slo
from loadgen.measure.summary import Measured, summarize
from loadgen.measure.window import Window
from loadgen.report.compare import as_text, compare
from loadgen.report.csv_export import points_csv
from loadgen.report.figures import Figures
from loadgen.report.html_page import report_html
from loadgen.report.table import COLUMNS, headline, row
from loadgen.results.records import Knee, Record, Run, encode_run
from tests.loadgen.samples import record

GOLDEN = Path(__file__).parents[1] / "golden" / "loadgen"
MS = 1_000_000


def answers(point: int, every_ms: int, first_ms: int) -> list[Record]:
    return [
        msgspec.structs.replace(
            record(
                i, scheduled=i * every_ms * MS, first=(i * every_ms + first_ms + i % 13) * MS,
                end=(i * every_ms + 3 * first_ms + i % 13) * MS, tokens=5,
                error="HTTP 503" if i == 50 else None,
            ),
            point=point,
        )
        for i in range(4000 // every_ms)
    ]  # fmt: skip


def made(first_ms: int) -> tuple[Run, list[Record]]:
    slo, points, records = "p90:ttft=60ms", [], list[Record]()
    for number, every_ms in enumerate((40, 20)):
        some = answers(number, every_ms, first_ms + 5 * number)
        asked = Measured(None, 1000 / every_ms, some, Window(0, 4000 * MS), cpu_share=0.1)
        points.append(summarize(asked, parse_slo(slo)))
        records += some
    knee = Knee(kind="rate", level=50.0, low=48.0, high=52.0, reason="found", probes=9, seconds=70.0)
    run = Run(
        run_id=f"run{first_ms}", spec={"mode": "rate", "slo": slo}, seed=0, versions={}, verdict="pass",
        best=1, points=points, knee=knee,
    )  # fmt: skip
    return run, records


def table() -> str:
    run, _ = made(40)
    return "\n".join([" | ".join(COLUMNS), *(" | ".join(row(p)) for p in run.points), headline(run), ""])


def page() -> str:
    """Return the report without the drawings of matplotlib, which differ between its versions."""
    run, records = made(40)
    return report_html(
        run, records, Figures(b"<svg>curve</svg>", b"", b"<svg>distributions</svg>", None)
    ).decode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.txt", table()),
        ("run.json", encode_run(made(40)[0]).decode()),
        ("points.csv", points_csv(made(40)[0]).decode()),
        ("report.html", page()),
        ("compare.txt", as_text(compare(made(40), made(50)))),
    ],
    ids=lambda value: value if value.endswith((".txt", ".json", ".csv", ".html")) else "",
)
def test_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
