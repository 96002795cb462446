# Compiled by mypyc: see setup.py.
"""The interface through which an exchange writes to its client."""

from collections.abc import Callable
from typing import Protocol


class ResponseWriter(Protocol):
    """Receives the response of one exchange; implemented by ``ClientConnection``."""

    peer: str

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def fast_writer(self) -> Callable[[bytes], None]:
        """Return a function that writes without checks, valid while the exchange runs."""

    def pause(self, *, paused: bool) -> None:
        """Stop reading from the client, or resume."""

    def take_buffered(self) -> bytes:
        """Return the bytes received after the request, and remove them from the buffer."""

    def send_error(
        self,
        status: int,
        message: str,
        code: str,
        request_id: str = "",
        *,
        close: bool = True,
        retry_seconds: int | None = None,
    ) -> None:
        """Send an error that the proxy itself reports."""

    def send_response(self, body: bytes, request_id: str, *, close: bool) -> None:
        """Send a JSON response of the proxy itself."""

    def finish_response(self, *, keep: bool) -> None:
        """End the exchange, whose response was written; close unless ``keep``."""

    def abort(self) -> None:
        """Close the connection immediately."""
