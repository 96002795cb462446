"""Claim of the run directory before a run, and atomic writes.

Imports no matplotlib, numpy or zstd, since it is used before the first request.
"""

import contextlib
import errno
from pathlib import Path
from typing import Final

RUN: Final = "run.json"
REQUESTS: Final = "requests.jsonl.zst"


def claim(out: Path, *, overwrite: bool) -> list[Path]:
    """Create the directory and check that it is writable; return the created directories, deepest first.

    Raises ``ValueError`` naming ``--out`` if that fails, or if it contains a run and ``overwrite`` is False.
    """
    if not overwrite and any((out / name).exists() for name in (RUN, REQUESTS)):
        raise ValueError(f"--out {out}: contains a run; give another directory, or --force to replace it")
    try:
        new = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f"{RUN}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written: {error.strerror}") from error
    return new


def release(created: list[Path]) -> None:
    """Remove the directories that ``claim`` created for a run that did not start, unless they have files."""
    with contextlib.suppress(OSError):
        for folder in created:
            folder.rmdir()


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically; raises ``OSError`` with ``filename`` set.

    A device or a pipe (``/dev/stdout``) is written in place: it must not be replaced by a file.
    """
    special = path.exists() and not path.is_file()
    part = path if special else path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(data)
        if not special:
            part.replace(path)
    except OSError as error:
        if not special:
            with contextlib.suppress(OSError):
                part.unlink()
        # The error of write(2), such as a full disk, has no file name.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
