# Compiled by mypyc: see setup.py.
"""The client's side, as the rest of the relay sees it."""

from collections.abc import Callable
from typing import Protocol


class ResponseWriter(Protocol):
    """Who asked, and gets the answer."""

    peer: str

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def fast_writer(self) -> Callable[[bytes], None]:
        """``write``, for as long as the exchange runs: the shortest way."""

    def pause(self, *, paused: bool) -> None:
        """Stop to read, or go on."""

    def take_buffered(self) -> bytes:
        """Bytes that came after the request; they are taken."""

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
        """Answer with an error of our own."""

    def send_response(self, body: bytes, request_id: str, *, close: bool) -> None:
        """Answer with JSON of our own."""

    def finish_response(self, *, keep: bool) -> None:
        """The answer is written."""

    def abort(self) -> None:
        """Close at once."""
