"""The time at which a meter was last running, in a file that outlives the process.

The next meter declares the time since then as a gap (``meter_restarted``). The file is next to the meter's
socket. It is mapped with MAP_SHARED: writing a stamp needs no system call, and the last one survives SIGKILL.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

_STAMP: Final = struct.Struct("<q")


class Heartbeat:
    """The file as a mapped integer.

    Attributes:
        previous_ns: Last stamp of an earlier meter of the same supervisor; None for the first meter.
    """

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
        """Write the present time, nanoseconds of the monotonic clock."""
        _STAMP.pack_into(self._map, 0, t_ns)

    def close(self) -> None:
        """Unmap the file, which is not removed."""
        self._map.close()
