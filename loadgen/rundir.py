"""The run directory: ``run.json``, ``requests.jsonl.zst``, report and pictures made from these two."""

from pathlib import Path

import msgspec

from loadgen.flat import points_csv
from loadgen.outdir import REQUESTS, RUN, write_file
from loadgen.pictures import pictures
from loadgen.records import INTERRUPTED, Record, Run, decode_records, decode_run, encode_records, encode_run
from loadgen.report import report_html
from proxy import zstd

_DRAWN = ("curve.svg", "curve.png")


def keep(out: Path, run: Run, records: list[Record]) -> None:
    """Write what was measured, each file completely or not at all; the directory is created.

    Raises ``OSError`` naming the file that cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    packed = zstd.compress(encode_records(records), level=6)
    for name, data in ((REQUESTS, packed), (RUN, encode_run(run))):
        write_file(out / name, data)


def rebuild(out: Path, run: Run, records: list[Record], html: Path | None = None) -> list[Path]:
    """Report, table and pictures from what was measured: the same bytes each time. Says what it wrote."""
    drawn = pictures(run, records)
    made = {
        html or out / "report.html": report_html(run, records, drawn),
        out / "points.csv": points_csv(run),
    }
    if drawn is not None:
        made |= dict(zip((out / name for name in _DRAWN), (drawn.svg, drawn.png), strict=True))
    for path, data in made.items():
        write_file(path, data)
    if drawn is None:  # pictures of a run that was replaced must not stay
        for name in _DRAWN:
            (out / name).unlink(missing_ok=True)
    return list(made)


def resumable(out: Path) -> tuple[Run, list[Record]]:
    """A sweep that was not over: its whole points and their requests; raises ``ValueError`` if it was."""
    run, records = load(out)
    if run.verdict != "interrupted" or run.spec.get("command") != "sweep" or run.spec.get("search"):
        raise ValueError(f"--resume {out}: only a sweep over a grid that was interrupted can go on")
    points = [point for point in run.points if INTERRUPTED not in point.notes]
    kept = [record for record in records if record.point < len(points)]
    return msgspec.structs.replace(run, points=points), kept


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
        data = zstd.decompress(packed)
    except zstd.ZstdError as error:
        raise ValueError(f"{out / REQUESTS}: {error}") from error
    return run, decode_records(data)
