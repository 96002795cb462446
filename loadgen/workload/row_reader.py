"""Reader of the rows of input files (data sets, traces): use valid rows, skip and report the others.

Files may be compressed, from Windows (byte order marks, UTF-16, CRLF), truncated, or have single malformed
rows. A malformed row does not invalidate the others, unless ``--strict`` is given.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from proxy.api.scan import Scanner

_SHOWN: Final = 3  # rows named in a note
_BOM: Final = b"\xef\xbb\xbf"
_UTF32: Final = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")

# Detected by magic numbers, since the name of a pipe or a download says nothing. Modules are imported only
# when needed, since every import delays the first request.
_COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "proxy.zstd"),
    b"BZh": ("bzip2", "bz2"),
    b"\xfd7zXZ": ("xz", "lzma"),
}
_OTHER_FORMATS: Final = {b"PK\x03\x04": "a zip archive", b"PAR1": "a Parquet file"}


@dataclass(slots=True)
class SkippedRows:
    """The skipped rows of one file: their number, and the reasons of the first few.

    ``read`` counts the others.
    """

    what: str  # the option and the file
    strict: bool = False
    verdict: str = "rows left out"
    count: int = 0
    read: int = 0
    _reasons: list[str] = field(default_factory=list)

    def add(self, where: str, reason: object) -> None:
        """Skip a row; raises ``ValueError`` with ``--strict``."""
        if self.strict:
            raise ValueError(f"{self.what}: {where}: {reason} (--strict)")
        self.count += 1
        if len(self._reasons) < _SHOWN:
            self._reasons.append(f"{where}: {reason}")

    def notes(self) -> tuple[str, ...]:
        """Return one line with the number of skipped rows and the reasons; nothing if there are none."""
        if not self.count:
            return ()
        more = "; ..." if self.count > len(self._reasons) else ""
        share = f"{self.count} of {self.count + self.read} {self.verdict}"
        return (f"{self.what}: {share}: {'; '.join(self._reasons)}{more}",)

    def nothing(self, shape: str) -> ValueError:
        """Return the error for a file without a valid row."""
        why = f"no row can be read: {self._reasons[0]}" if self._reasons else "no rows"
        return ValueError(f"{self.what}: {why}; {shape}")


def read_file(path: Path, what: str) -> bytes:
    """Return a file's text as UTF-8, decompressed, without a byte order mark.

    Invalid UTF-8 remains, since it affects single rows only. Raises ``ValueError`` that begins with ``what``.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ValueError(f"{what}: {getattr(error, 'strerror', None) or error}") from error
    for magic, (name, module) in _COMPRESSED.items():
        if data.startswith(magic):
            try:
                data = importlib.import_module(module).decompress(data)
            except Exception as error:  # each module has its own errors, in addition to EOFError and OSError
                raise ValueError(f"{what}: damaged {name} data: {error}") from error
            break
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise ValueError(f"{what}: {name}: convert it to text first")
    return _as_utf8(data, what)


def _as_utf8(data: bytes, what: str) -> bytes:
    encoding = "utf-32" if data.startswith(_UTF32) else "utf-16" if data.startswith(_UTF16) else None
    if encoding is not None:
        try:
            return data.decode(encoding).encode()
        except UnicodeError as error:
            raise ValueError(f"{what}: not {encoding.upper()} text: {error}; save it as UTF-8") from error
    if b"\0" in data[:256]:
        raise ValueError(f"{what}: not UTF-8 text (it contains NUL bytes): save it as UTF-8")
    return data.removeprefix(_BOM)


def json_rows(data: bytes, skipped: SkippedRows) -> Iterator[tuple[str, bytes]]:
    """Yield place and raw JSON of each row: the items of one array, or lines that are not blank."""
    if not data.lstrip().startswith(b"["):
        for number, line in enumerate(data.splitlines(), start=1):
            if line.strip():
                yield f"line {number}", line
        return
    try:
        rows = [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
        complete = True
    except ValueError:  # a malformed value, or a truncated array
        scanner = Scanner(array=True)
        scanner.feed(data)
        rows, complete = scanner.items, scanner.complete
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row
    if not complete:
        skipped.add(f"row {len(rows) + 1}", "the array is truncated here, or is not JSON")
