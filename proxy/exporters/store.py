"""The ledger file (``--ledger FILE``): one line of JSON for each final record, written immediately."""

import logging
import os
from pathlib import Path
from typing import Final

from proxy.config import ConfigError
from proxy.exporters.base import Finished
from proxy.schema import encode

KEPT_FILES: Final = 5  # rotated files: FILE.1 is the newest
_log = logging.getLogger(__name__)


class LedgerStore:
    """Appends records to a file, with rotation.

    - An incomplete line (crash, full disk) is left as it is, and the next record begins on a new line.
    - Beyond ``max_bytes`` the file becomes ``FILE.1``, the former one ``FILE.2`` and so on, up to
      :data:`KEPT_FILES`. If it cannot be renamed (a single file mounted into a container), it grows, and
      rotation is tried again after as many bytes.
    - A file that another program renamed (logrotate) is created again; no signal is needed.

    Args:
        path: The file.
        max_bytes: Size at which it is rotated.

    Raises:
        ConfigError: if the file cannot be opened for appending.
    """

    name = "ledger"

    def __init__(self, path: Path, max_bytes: int = 1 << 30) -> None:
        self._path = path
        self._max_bytes = self._bound = max_bytes
        self._file: int | None = None
        try:
            self._open()
        except OSError as error:
            raise ConfigError(f"ledger: {path} cannot be written: {error.strerror}") from error

    def _open(self) -> None:
        """Open the file; if that raises ``OSError``, the state is unchanged."""
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._file is not None:
            os.close(self._file)
        self._file = file
        status = os.fstat(file)
        self._inode = status.st_dev, status.st_ino
        self._size, self._bound = status.st_size, self._max_bytes
        self._torn = self._size > 0 and os.pread(file, 1, self._size - 1) != b"\n"

    def export(self, finished: Finished) -> None:
        """Append the record; raises ``OSError`` if it could not be written completely."""
        line = encode(finished.record) + b"\n"
        if self._was_moved():
            self._open()
        elif self._size and self._size + len(line) > self._bound:
            self._rotate()
        if self._torn:
            line = b"\n" + line
        self._torn = True  # until the line is complete
        assert self._file is not None
        written = os.write(self._file, line)
        self._size += written
        if written < len(line):
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written")
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
            self._path.replace(aside)  # first, so that the others keep their names if this fails
        except OSError as error:
            self._bound = self._size + self._max_bytes
            _log.error("ledger: %s cannot be renamed and continues to grow: %s", self._path, error.strerror)
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
