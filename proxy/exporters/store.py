"""The ledger on disk: one JSON line a final record, written at once."""

import logging
import os
from pathlib import Path
from typing import Final

from proxy.config import ConfigError
from proxy.exporters.base import Finished
from proxy.schema import encode

KEPT_FILES: Final = 5
_log = logging.getLogger(__name__)


class LedgerStore:
    """``--ledger FILE``. A line torn by a crash or a full disk stays as it is: what follows starts afresh.

    Beyond ``max_bytes`` the file becomes ``FILE.1``, the former ``FILE.2`` and so on, up to
    :data:`KEPT_FILES`. One that another program moved away (logrotate) is made anew; no signal is needed.
    Where a file cannot be moved (one mounted alone), it grows on, and is tried again after as many bytes.
    """

    name = "ledger"

    def __init__(self, path: Path, max_bytes: int = 1 << 30) -> None:
        """Open for appending; raises :class:`ConfigError` if that cannot be."""
        self._path = path
        self._max_bytes = self._bound = max_bytes
        self._file: int | None = None
        try:
            self._open()
        except OSError as error:
            raise ConfigError(f"ledger: {path} cannot be written: {error.strerror}") from error

    def _open(self) -> None:
        """Open, or raise ``OSError`` with everything as it was."""
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._file is not None:
            os.close(self._file)
        self._file = file
        status = os.fstat(file)
        self._inode = status.st_dev, status.st_ino
        self._size, self._bound = status.st_size, self._max_bytes
        self._torn = self._size > 0 and os.pread(file, 1, self._size - 1) != b"\n"

    def export(self, finished: Finished) -> None:
        """Append the record; raises ``OSError`` if it could not be written whole."""
        line = encode(finished.record) + b"\n"
        if self._was_moved():
            self._open()
        elif self._size and self._size + len(line) > self._bound:
            self._rotate()
        if self._torn:
            line = b"\n" + line
        self._torn = True  # until it is written whole
        assert self._file is not None
        written = os.write(self._file, line)
        self._size += written
        if written < len(line):
            raise OSError(f"{self._path}: the disk took {written} of {len(line)} bytes")
        self._torn = False

    def _was_moved(self) -> bool:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._inode

    def _rotate(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.0")
        try:
            self._path.replace(aside)  # first, so that the others stay where they are if it cannot be
        except OSError as error:
            self._bound = self._size + self._max_bytes
            _log.error("ledger: %s cannot be moved, so it grows on: %s", self._path, error.strerror)
            return
        for number in range(KEPT_FILES - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        aside.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
