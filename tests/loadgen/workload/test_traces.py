"""Traces as they are published, and as spreadsheets, scripts and Windows leave them."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from loadgen.workload.traces import read_trace
from proxy import zstd
from tests.beside import beside

TRACES = beside("LOADGEN_TRACES", "data/traces")
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE = HEAD + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
MOONCAKE = (
    '{"timestamp": 5, "input_length": 3, "output_length": 0, "hash_ids": [1]}\n'
    '{"timestamp": 1005, "input_length": 4, "output_length": 7, "hash_ids": []}\n'
)


def written(tmp_path: Path, data: str | bytes) -> Path:
    path = tmp_path / "trace"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_both_formats_are_read(tmp_path: Path) -> None:
    found = read_trace(written(tmp_path, AZURE), 2.0)
    assert found.times_ns == (0, 2_157_289_500)
    assert found.pairs == ((374, 44), (396, 109))
    found = read_trace(written(tmp_path, MOONCAKE))
    assert (found.times_ns, found.pairs, found.notes) == ((0, 1_000_000_000), ((3, 1), (4, 7)), ())


@pytest.mark.parametrize(
    "second",
    [
        "2024-05-10 00:00:01.009930+00:00",
        "2024-05-10T00:00:01.00993Z",
        "2024-05-10 00:00:01.0099300",
        "2024-05-10 00:00:01,009930",
        "2024-05-10 02:00:01.009930+02:00",
        "2024-05-09 19:00:01.009930 -0500",
        "2024-05-10 00:00:01.009930 UTC",
    ],
)
def test_stamps_with_and_without_an_offset_and_a_fraction(tmp_path: Path, second: str) -> None:
    rows = f'{HEAD}2024-05-10 00:00:00+00:00,4,3\n"{second}",5,2\n'
    assert read_trace(written(tmp_path, rows)).times_ns == (0, 1_009_930_000)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + AZURE.encode(),
        AZURE.encode("utf-16"),
        b"\xfe\xff" + AZURE.encode("utf-16-be"),
        AZURE.encode("utf-32"),
        AZURE.replace("\n", "\r\n").encode(),
        AZURE.replace("\n", "\r").encode(),
        AZURE.replace("\n", "\n\n").encode(),
        AZURE.replace(",", " , ").encode(),
        AZURE.replace(",", ";").encode(),
        AZURE.replace(",", "\t").encode(),
        AZURE.replace("44", "44.0").replace("374", '"374"').encode(),
        AZURE.replace(HEAD, '"timestamp","Context Tokens","generated_tokens"\n').encode(),
        AZURE.replace(HEAD, HEAD.replace("\n", ",Note\n")).replace("44", "44,\xff").encode("latin-1"),
        ("\n" + AZURE.rstrip()).encode(),
        gzip.compress(AZURE.encode()),
        zstd.compress(AZURE.encode()),
        bz2.compress(AZURE.encode()),
        lzma.compress(b"\xef\xbb\xbf" + AZURE.encode()),
    ],
)
def test_equivalent_csv_is_read_alike(tmp_path: Path, data: bytes) -> None:
    wanted = read_trace(written(tmp_path, AZURE))
    assert read_trace(written(tmp_path, data)) == wanted


@pytest.mark.parametrize(
    "data",
    [
        "\ufeff" + MOONCAKE.replace("\n", "\n\n"),
        MOONCAKE.replace("\n", "\r\n"),
        MOONCAKE.replace(": 3", ": 3.0").replace(": 7", ': "7"'),
        "[" + MOONCAKE.strip().replace("\n", ",") + "]",
        MOONCAKE.replace("[]", "NaN"),
    ],
)
def test_equivalent_json_is_read_alike(tmp_path: Path, data: str) -> None:
    wanted = read_trace(written(tmp_path, MOONCAKE))
    assert read_trace(written(tmp_path, data)) == wanted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("yesterday,1,2", "TIMESTAMP 'yesterday' is not a time"),
        ("5/10/2024 0:00,1,2", "TIMESTAMP '5/10/2024 0:00' is not a time"),
        ("2023-11-16 18:15:47", "ContextTokens '' is not a whole number"),
        ("2023-11-16 18:15:47,1.5,2", "ContextTokens '1.5' is not a whole number"),
        ("2023-11-16 18:15:47,1,nan", "GeneratedTokens 'nan' is not a whole number"),
        ("2023-11-16 18:15:47,1,1e400", "GeneratedTokens '1e400' is not a whole number"),
        ("2023-11-16 18:15:47,-1,2", "ContextTokens -1: must be from 0"),
        (f"2023-11-16 18:15:47,{2**70},2", f"ContextTokens {2**70}: must be from 0"),
    ],
)
def test_an_invalid_csv_row_is_skipped_and_reported_by_line(tmp_path: Path, row: str, reason: str) -> None:
    path = written(tmp_path, AZURE + row + "\n")
    found = read_trace(path)
    assert len(found.pairs) == 2
    (note,) = found.notes
    assert note.startswith(f"--arrivals trace:{path}: 1 of 3 rows left out: line 4: {reason}")
    with pytest.raises(ValueError, match=r"--arrivals trace:.*: line 4: .*\(--strict\)"):
        read_trace(path, strict=True)


@pytest.mark.parametrize(
    "row",
    ["{", "null", "7", '{"timestamp": NaN, "input_length": 1, "output_length": 1}',
     '{"timestamp": 1e400, "input_length": 1, "output_length": 1}', '{"timestamp": 1, "input_length": 1}',
     '{"timestamp": 1, "input_length": true, "output_length": 1}'],
)  # fmt: skip
def test_an_invalid_json_row_is_skipped(tmp_path: Path, row: str) -> None:
    found = read_trace(written(tmp_path, f"{MOONCAKE}{row}\n"))
    assert len(found.pairs) == 2
    assert "1 of 3 rows left out: line 3: " in found.notes[0]


def test_only_the_first_reasons_are_named(tmp_path: Path) -> None:
    (note,) = read_trace(written(tmp_path, AZURE + "x,1,2\n" * 9)).notes
    assert "9 of 11 rows left out: line 4: " in note
    assert note.count("line ") == 3
    assert note.endswith("; ...")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no rows"),
        (HEAD.encode(), "no rows"),
        (HEAD.encode() + b"yesterday,1,2\n", "no row can be read: line 2: TIMESTAMP 'yesterday'"),
        (b"TIMESTAMP,ContextTokens\n", "no column GeneratedTokens in its first line"),
        (AZURE.encode("utf-16-le"), "not UTF-8 text .*NUL bytes.*: save it as UTF-8"),
        (b"\xff\xfea", "not UTF-16 text"),
        (gzip.compress(AZURE.encode())[:-9], "damaged gzip data"),
        (b"\x28\xb5\x2f\xfdxx", "damaged zstd data"),
        (b"PK\x03\x04xx", "a zip archive"),
        (b"PAR1xx", "a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_option(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=f"^--arrivals trace:.*/trace: {says}"):
        read_trace(written(tmp_path, data))


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match=r"--arrivals trace:.*: (No such file|Is a directory)"):
            read_trace(path)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the trace samples are not here")
def test_published_traces() -> None:
    for path in (*TRACES.glob("sample_*.csv"), *TRACES.glob("sample_*.jsonl")):
        found = read_trace(path)
        assert list(found.times_ns) == sorted(found.times_ns)
        assert len(found.pairs) >= 1000
        assert found.notes == ()
