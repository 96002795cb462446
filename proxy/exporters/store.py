"""The ledger on disk: one JSON line a final record, appended and flushed."""

from pathlib import Path

from proxy.config import ConfigError
from proxy.exporters.base import Finished
from proxy.schema import encode


class LedgerStore:
    """``--ledger FILE``. A line torn by a crash stays as it is; what follows starts on a fresh line."""

    name = "ledger"

    def __init__(self, path: Path) -> None:
        """Open for appending; raises :class:`ConfigError` if that cannot be."""
        try:
            torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"ledger: {path} cannot be written: {error.strerror}") from error
        if torn:
            self._file.write(b"\n")

    def export(self, finished: Finished) -> None:
        """Append the record."""
        self._file.write(encode(finished.record) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
