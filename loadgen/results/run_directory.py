"""Save, load and resume of a run: ``run.json`` and ``requests.jsonl.zst`` in a run directory."""

from pathlib import Path

import msgspec

from loadgen.results.output_files import REQUESTS, RUN, write_file
from loadgen.results.records import (
    INTERRUPTED,
    Record,
    Run,
    decode_records,
    decode_run,
    encode_records,
    encode_run,
)
from proxy import zstd


def keep(out: Path, run: Run, records: list[Record]) -> None:
    """Write both files of a run, each completely or not at all; create the directory.

    Raises ``OSError`` naming the file that cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    packed = zstd.compress(encode_records(records), level=6)
    for name, data in ((REQUESTS, packed), (RUN, encode_run(run))):
        write_file(out / name, data)


def resumable(out: Path) -> tuple[Run, list[Record]]:
    """Load the complete points of an interrupted sweep, and their requests.

    Raises ``ValueError`` if the run is not an interrupted sweep over a grid.
    """
    run, records = load(out)
    if run.verdict != "interrupted" or run.spec.get("command") != "sweep" or run.spec.get("search"):
        raise ValueError(f"--resume {out}: only an interrupted sweep over a grid can be resumed")
    points = [point for point in run.points if INTERRUPTED not in point.notes]
    kept = [record for record in records if record.point < len(points)]
    return msgspec.structs.replace(run, points=points), kept


def load(out: Path) -> tuple[Run, list[Record]]:
    """Load a run and its records; raises ``ValueError`` with the file that is missing or invalid."""
    try:
        run = decode_run((out / RUN).read_bytes())
        packed = (out / REQUESTS).read_bytes()
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}; give a run directory") from error
    except ValueError as error:
        raise ValueError(f"{out / RUN}: {error}") from error
    try:
        data = zstd.decompress(packed)
    except zstd.ZstdError as error:
        raise ValueError(f"{out / REQUESTS}: {error}") from error
    return run, decode_records(data)
