"""Recorded arrivals: Azure LLM inference 2023 (CSV), Mooncake (JSONL), or the same in own files."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from proxy.units import NS_PER_SECOND, ns_from_seconds

_SHAPE = (
    "a trace is CSV with TIMESTAMP,ContextTokens,GeneratedTokens (Azure), or JSONL with timestamp in"
    " ms, input_length, output_length (Mooncake)"
)


@dataclass(frozen=True, slots=True)
class TraceData:
    """Arrival times since the first one, ascending, and (prompt, answer) tokens of each."""

    times_ns: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]


class _Row(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int


def read_trace(path: Path, speed: float = 1.0) -> TraceData:
    """The trace, played ``speed`` times as fast; raises ``ValueError`` naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"--arrivals trace:{path}: {error.strerror}; {_SHAPE}") from error
    jsonl = bool(lines) and lines[0].lstrip().startswith("{")
    rows = _mooncake(lines, path) if jsonl else _azure(lines, path)
    if not rows:
        raise ValueError(f"{path}: no rows; {_SHAPE}")
    rows.sort(key=lambda row: row[0])
    first = rows[0][0]
    times = tuple(round((at - first) / speed) for at, _, _ in rows)
    return TraceData(times, tuple((max(1, i), max(1, o)) for _, i, o in rows))


def _azure(lines: list[str], path: Path) -> list[tuple[int, int, int]]:
    found = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            at = _stamp_ns(row["TIMESTAMP"])
            found.append((at, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} line {number}: {error}; {_SHAPE}") from error
    return found


def _stamp_ns(text: str) -> int:
    """Azure writes seven digits after the second; datetime takes six at most."""
    whole, _, fraction = text.partition(".")
    seconds = (datetime.fromisoformat(whole) - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001
    return round(seconds) * NS_PER_SECOND + int((fraction or "0").ljust(9, "0")[:9])


def _mooncake(lines: list[str], path: Path) -> list[tuple[int, int, int]]:
    decoder = msgspec.json.Decoder(_Row)
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path} line {number}: {error}; {_SHAPE}") from error
        at = ns_from_seconds(row.timestamp / 1000)
        found.append((at, row.input_length, row.output_length))
    return found
