# Compiled by mypyc: see setup.py.
"""An error response to a request that the proxy had changed, held until it is known what it is about."""

from typing import Final

from proxy.api.stream_options import refused
from proxy.relay.http.heads import ResponseHead
from proxy.relay.response.response import Response

_STATUS: Final[tuple[int, ...]] = (400, 422)  # statuses of servers that reject an unknown field
_MAX_BYTES: Final = 64 * 1024
FORGET_SECONDS: Final = (
    600.0  # until stream_options are sent to the backend again: it may be another server by then
)


class HeldError:
    """The parts of an error response, in order.

    ``full``: more came than is held; it has to be passed on.
    """

    __slots__ = ("_bytes", "_parts", "full", "head")

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self._parts: list[tuple[bytes, list[bytes]]] = []  # bytes as they came, and the payload in them
        self._bytes = 0
        self.full = False

    def add(self, raw: bytes, pieces: list[bytes]) -> None:
        """Store bytes of the body."""
        self._parts.append((raw, pieces))
        self._bytes += len(raw)
        self.full = self._bytes > _MAX_BYTES

    def pass_to(self, response: Response, t_ns: int) -> None:
        """Forward the parts held so far to ``response``."""
        response.begin(self.head)
        for raw, pieces in self._parts:
            response.body(raw, pieces, t_ns)

    def refuses_usage(self) -> bool:
        """Return whether the body names what was added to the request."""
        return refused(b"".join(piece for _, pieces in self._parts for piece in pieces))


def may_refuse(status: int) -> bool:
    """Return whether a response of this status may be about a field of the request."""
    return status in _STATUS
