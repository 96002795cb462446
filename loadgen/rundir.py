"""The run directory: ``run.json``, ``requests.jsonl.zst``, report and pictures made from these two."""

from pathlib import Path

import zstandard

from loadgen.flat import points_csv
from loadgen.plot import draw
from loadgen.records import Record, Run, decode_records, decode_run, encode_records, encode_run
from loadgen.report import report_html

RUN = "run.json"
REQUESTS = "requests.jsonl.zst"


def save(out: Path, run: Run, records: list[Record]) -> None:
    """Write everything; the directory is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).write_bytes(encode_run(run))
    packed = zstandard.ZstdCompressor(level=6).compress(encode_records(records))
    (out / REQUESTS).write_bytes(packed)
    # From what was written, not from memory: a later rebuild has nothing else.
    rebuild(out, *load(out))


def rebuild(out: Path, run: Run, records: list[Record], html: Path | None = None) -> None:
    """Pictures and report from what was measured: the same bytes each time."""
    for kind in ("svg", "png"):
        (out / f"curve.{kind}").write_bytes(draw(run, kind))
    (out / "points.csv").write_bytes(points_csv(run))
    (html or out / "report.html").write_bytes(report_html(run, records))


def load(out: Path) -> tuple[Run, list[Record]]:
    """What ``save`` wrote; raises ``ValueError`` naming the file that is missing or wrong."""
    try:
        run = decode_run((out / RUN).read_bytes())
        packed = (out / REQUESTS).read_bytes()
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}; give a run directory") from error
    except ValueError as error:
        raise ValueError(f"{out / RUN}: {error}") from error
    try:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    except zstandard.ZstdError as error:
        raise ValueError(f"{out / REQUESTS}: {error}") from error
    return run, decode_records(data)
