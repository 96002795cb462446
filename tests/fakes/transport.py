"""A transport without a socket: keeps what is written, ends as a real one does, one loop turn later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Ends(Protocol):
    """The callbacks of a transport at its start and its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, error: Exception | None, /) -> None: ...


class FakeTransport(asyncio.Transport):
    """``written`` is what its protocol sent; ``broken``: it was cut off, not closed."""

    def __init__(self, protocol: Ends) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.broken = False
        self.half_closed = False
        self._closing = False
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self._closing
        assert not self.half_closed
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._end(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        if not self._closing:
            self.broken = True
        self.close()

    def _end(self, tell: Callable[[], None]) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(tell)

    def pause_reading(self) -> None:
        """Whoever feeds it goes on."""

    def resume_reading(self) -> None:
        """As above."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default
