"""``points.csv`` and ``requests.csv``, for spreadsheets; an empty cell is an unknown value."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from loadgen.measure.metrics import e2e, tpot, ttft
from loadgen.results.records import Point, Record, Run

_REQUEST_COLUMNS = (
    "point", "index", "id", "scheduled_ns", "dispatched_ns", "sent_ns", "first_ns", "end_ns", "status",
    "error", "prompt_tokens", "output_tokens", "images", "joules", "unknown",
)  # fmt: skip


def points_csv(run: Run) -> bytes:
    """Return one row per point; nested values as ``ttft_seconds.p95``, notes joined by ``; ``."""
    rows = [_flat(point) for point in run.points]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _written(["point", *names], ([i, *(row.get(n) for n in names)] for i, row in enumerate(rows)))


def requests_csv(records: Sequence[Record]) -> bytes:
    """Return one row per request: times (ns since the start of the point), latencies, tokens and joules."""
    metrics = (("ttft_seconds", ttft), ("tpot_seconds", tpot), ("e2e_seconds", e2e))
    head = [*_REQUEST_COLUMNS, *(name for name, _ in metrics)]
    rows = (
        [*(getattr(r, name) for name in _REQUEST_COLUMNS), *(metric(r) for _, metric in metrics)]
        for r in records
    )
    return _written(head, rows)


def _flat(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(point).items():
        if name == "notes":
            found[name] = "; ".join(value)
        elif name == "window_seconds":
            found |= {"window_start_seconds": value[0], "window_end_seconds": value[1]}
        elif isinstance(value, dict):
            intervals = value.pop("intervals", {})
            found |= {f"{name}.{key}": one for key, one in value.items()}
            found |= {f"{name}.{key}_low": low for key, (low, _) in intervals.items()}
            found |= {f"{name}.{key}_high": high for key, (_, high) in intervals.items()}
        else:
            found[name] = value
    return found


def _written(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
