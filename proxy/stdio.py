"""Standard input, output and error that cannot fail a program, for the start of both commands.

What is measured must not depend on the terminal. A shell can start a program with descriptors 0-2 closed
(``<&-``, ``>&-``, some supervisors): the next file or socket opened gets such a number, and is then taken
for the standard stream (libuv aborts). A reader can go away (``| head -1``), a file can be on a full disk.
"""

import contextlib
import io
import os
import select
import sys
from typing import Final, TextIO

_NAMES: Final = ("stdin", "stdout", "stderr")


class _TolerantFile(io.FileIO):
    """A descriptor whose write errors are kept in ``failure`` instead of raised; it is never closed."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: object) -> int:
        """Write, or discard after the first error."""
        view = memoryview(data)  # type: ignore[arg-type]  # typeshed: Buffer, from Python 3.12 on
        while self.failure is None:
            try:
                written: int | None = super().write(view)
            except OSError as error:
                self.failure = error
                break
            if written is not None:
                return written
            # None: the descriptor is non-blocking (another program set that on a shared pipe) and full.
            select.select([], [self.fileno()], [])
        return view.nbytes


def protect() -> None:
    """Open closed standard descriptors on ``/dev/null``, and let no error of writing to 1 and 2 be raised.

    Call it first of all: a descriptor that is opened before gets the closed number. Characters that the
    encoding of the terminal lacks are written as escapes.
    """
    for fd, name in enumerate(_NAMES):
        if not _is_open(fd):
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is ``fd``
        if name == "stdin":
            if sys.stdin is None:
                sys.stdin = os.fdopen(fd, encoding="utf-8", closefd=False)
            continue
        old: TextIO | None = getattr(sys, name)
        if old is not None:
            with contextlib.suppress(OSError, ValueError):
                old.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(_TolerantFile(fd)),
            encoding=old.encoding if old is not None else "utf-8",
            errors="namereplace",
            line_buffering=name == "stderr" or os.isatty(fd),
        )
        setattr(sys, name, stream)


def failure(stream: TextIO) -> OSError | None:
    """Flush and return the first error of writing to a stream that ``protect`` made; None for any other."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _TolerantFile) else None


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
