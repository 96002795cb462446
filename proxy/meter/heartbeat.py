"""The stamp at which a meter was last alive, in a file that outlives it.

The next meter declares the time since then as a gap. The file lies beside the meter's socket and is mapped
shared: a stamp costs no system call, and a meter that is killed leaves its last one.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

_STAMP: Final = struct.Struct("<q")


class Heartbeat:
    """``previous_ns`` is the last stamp of an earlier meter of this supervisor; None for the first."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises ``OSError``."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, _STAMP.size)
            self._map = mmap.mmap(file, _STAMP.size)
        finally:
            os.close(file)
        (stamp,) = _STAMP.unpack_from(self._map)
        self.previous_ns: int | None = stamp or None

    def beat(self, t_ns: int) -> None:
        """The meter is alive at ``t_ns`` (monotonic)."""
        _STAMP.pack_into(self._map, 0, t_ns)

    def close(self) -> None:
        """Unmap the file; it stays."""
        self._map.close()
