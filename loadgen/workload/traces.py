"""Recorded traces in the formats of Azure LLM inference 2023 and 2024 (CSV) and Mooncake (JSONL)."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from loadgen.workload.row_reader import SkippedRows, json_rows, read_file
from proxy.api.lenient import LenientDecoder, UnreadableError, integer_of
from proxy.units import ns_from_seconds

MAX_TOKENS: Final = 1_000_000  # of one prompt or response
_SHAPE: Final = (
    "a trace is CSV with TIMESTAMP,ContextTokens,GeneratedTokens (Azure), or JSONL with timestamp in"
    " ms, input_length, output_length (Mooncake)"
)
_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_DELIMITERS: Final = (",", ";", "\t")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Azure has seven decimals of seconds (2023), or six and an offset (2024); datetime supports six at most.
_STAMP: Final = re.compile(r"(.*\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?", re.IGNORECASE)
_MAX_STAMP_S: Final = 1e11  # the year 5138; also the largest count of milliseconds, in seconds


@dataclass(frozen=True, slots=True)
class TraceData:
    """Arrival times since the first one, ascending nanoseconds, and (prompt, response) tokens of each."""

    times_ns: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    notes: tuple[str, ...] = ()  # about skipped rows

    def played(self, speed: float) -> "TraceData":
        """Return the trace at ``speed`` times its recorded rate."""
        times = tuple(round(at / speed) for at in self.times_ns)
        return TraceData(times, self.pairs, self.notes)


class _Row(msgspec.Struct):
    timestamp: float | None = None
    input_length: int | None = None
    output_length: int | None = None


_ROW: Final = LenientDecoder(_Row)
_Arrival = tuple[int, int, int]  # nanoseconds, tokens of prompt and response


def read_trace(path: Path, speed: float = 1.0, *, strict: bool = False) -> TraceData:
    """Read a trace, to be replayed at ``speed`` times its recorded rate.

    Rows that cannot be used are skipped and reported in ``notes``, or rejected if ``strict``. Raises
    ``ValueError`` with option, file and row.
    """
    skipped = SkippedRows(f"--arrivals trace:{path}", strict)
    data = read_file(path, skipped.what)
    arrivals = _mooncake if data.lstrip()[:1] in {b"{", b"["} else _azure
    rows = sorted(arrivals(data, skipped))
    if not rows:
        raise skipped.nothing(_SHAPE)
    skipped.read = len(rows)
    first = rows[0][0]
    pairs = tuple((max(1, prompt), max(1, answer)) for _, prompt, answer in rows)
    return TraceData(tuple(at - first for at, _, _ in rows), pairs, skipped.notes()).played(speed)


def _azure(data: bytes, skipped: SkippedRows) -> Iterator[_Arrival]:
    text = data.decode("utf-8", "replace")
    head = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    places: list[int] | None = None
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
            if not any(cells):
                continue
            if places is None:
                places = _places(cells, skipped.what)
                continue
            stamp, prompt, answer = (cells[place] if place < len(cells) else "" for place in places)
            yield _stamp_ns(stamp), _count(prompt, _COLUMNS[1]), _count(answer, _COLUMNS[2])
        except StopIteration:
            return
        except (csv.Error, _RowError) as error:
            skipped.add(f"line {reader.line_num}", error)


class _RowError(Exception):
    """A row cannot be used; the message is the reason."""


def _places(head: list[str], what: str) -> list[int]:
    """Return the indices of the columns; case, spaces and underscores of their names are ignored."""
    names = [re.sub(r"[\s_]", "", cell).lower() for cell in head]
    for column in _COLUMNS:
        if column.lower() not in names:
            raise ValueError(
                f"{what}: no column {column} in its first line {','.join(head)[:80]!r}; {_SHAPE}"
            )
    return [names.index(column.lower()) for column in _COLUMNS]


def _stamp_ns(text: str) -> int:
    """Return the nanoseconds since 1970 of an ISO 8601 time; UTC if it has no offset."""
    found = _STAMP.fullmatch(text)
    seconds, fraction, offset = found.groups() if found else (text, None, None)
    if offset is not None and offset.upper() in {"Z", "UTC"}:
        offset = "+00:00"
    try:
        at = datetime.fromisoformat(seconds.strip() + (offset or ""))
    except ValueError:
        raise _RowError(
            f"TIMESTAMP {text[:40]!r} is not a time such as 2024-05-10 00:00:00.009930+00:00"
        ) from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    return microseconds * 1000 + int((fraction or "0").ljust(9, "0")[:9])


def _count(text: str, column: str) -> int:
    try:
        return _in_range(integer_of(text.encode()), column)
    except UnreadableError:
        raise _RowError(f"{column} {text[:40]!r} is not a whole number") from None


def _in_range(number: int, column: str) -> int:
    if not 0 <= number <= MAX_TOKENS:
        raise _RowError(f"{column} {number}: must be from 0 to {MAX_TOKENS}")
    return number


def _mooncake(data: bytes, skipped: SkippedRows) -> Iterator[_Arrival]:
    for where, raw in json_rows(data, skipped):
        row = _ROW.decode(raw, [])
        try:
            yield _arrival(row)
        except _RowError as error:
            skipped.add(where, error)


def _arrival(row: _Row | None) -> _Arrival:
    if row is None:
        raise _RowError("not a JSON object")
    if row.timestamp is None or row.input_length is None or row.output_length is None:
        missing = next(name for name in row.__struct_fields__ if getattr(row, name) is None)
        raise _RowError(f"{missing} is missing or not a number")
    seconds = row.timestamp / 1000
    if not abs(seconds) <= _MAX_STAMP_S:
        raise _RowError(f"timestamp {row.timestamp:g}: must be milliseconds")
    prompt = _in_range(row.input_length, "input_length")
    return ns_from_seconds(seconds), prompt, _in_range(row.output_length, "output_length")
