# Compiled by mypyc: see setup.py.
"""Edit the events of a stream: remove usage that the client did not request, add energy. No I/O.

Where the proxy requested usage, nothing of it reaches the client, whatever its shape: neither the chunk of
counts, nor the placeholders in other chunks (``reading.without_empty_usage``).

Where energy goes: into the last chunk of usage where the client requested usage, else into a comment before
the last event (``[DONE]``, ``message_stop``, ``response.completed``), else, where a stream ends without
one, at its end.

No event shows by itself that it is the last one with usage: gateways send a chunk with ``usage: null`` or
zeros first, engines one in every chunk. So a chunk of usage that may be the last is held until the next
event shows whether output goes on; then it is passed as it was. Nothing else is held.
"""

from collections import deque
from typing import Final

from proxy.relay.response.reading import (
    CONTENT,
    CONTENT_WITH_USAGE,
    FINAL_WITH_USAGE,
    LAST,
    NEUTRAL,
    USAGE_ALONE,
    with_usage_energy,
    without_empty_usage,
    without_usage,
)

_MAX_HELD: Final = 64  # events; comments that keep a connection alive may follow the chunk of usage


class StreamEditor:
    """Feed events by ``add`` and ``end``; ``take`` returns what may be written.

    When ``wants_energy`` is true, nothing more is released until ``put_energy`` is called.
    """

    __slots__ = ("_ended", "_energy", "_held", "_out", "_queue", "_rest", "_usage_is_ours", "awaits_energy")

    def __init__(self, *, energy: bool, usage_is_ours: bool) -> None:
        """``energy``: it is to be added. ``usage_is_ours``: only the proxy requested usage."""
        self._energy = energy
        self._usage_is_ours = usage_is_ours
        self._out: list[bytes] = []
        self._held: list[tuple[bytes, int]] = []  # from the chunk of usage on that may be the last
        self._queue: deque[tuple[bytes, int]] = deque()  # events that came while energy was awaited
        self._rest = b""
        self._ended = False
        self.awaits_energy = False

    @property
    def empty(self) -> bool:
        """Whether all events were released, so that bytes may pass beside this editor."""
        return not (self._out or self._held or self._queue or self.awaits_energy)

    def add(self, event: bytes, role: int) -> bool:
        """Add the next event; return whether it is passed on unchanged."""
        if self.awaits_energy:
            self._queue.append((event, role))
            return True
        received = event
        if self._usage_is_ours and role != LAST:
            if role == USAGE_ALONE:
                return False
            if role >= CONTENT_WITH_USAGE:
                event, role = without_usage(event), CONTENT
            elif role == CONTENT:
                kept = without_empty_usage(event)
                if kept is None:
                    return False
                event = kept
        if not self._energy:
            self._out.append(event)
        else:
            self._place(event, role)
        return event is received

    def _place(self, event: bytes, role: int) -> None:
        """Release an event, or hold it as long as the energy may have to precede it or be in it."""
        if role == LAST:
            self._held.append((event, role))
            self.awaits_energy = True
        elif role in {USAGE_ALONE, FINAL_WITH_USAGE} or (role == NEUTRAL and self._held):
            self._held.append((event, role))
            if len(self._held) > _MAX_HELD:
                self._release()
        else:
            self._release()
            self._out.append(event)

    def end(self, rest: bytes) -> None:
        """End the stream; ``rest`` is an event that was not completed."""
        self._rest = rest
        self._ended = True
        if not self.awaits_energy:
            self._at_end()

    def put_energy(self, energy: bytes) -> None:
        """Add the energy that was awaited, a JSON object, and release what was held for it."""
        self.awaits_energy = self._energy = False
        held, self._held = self._held, []
        places = [index for index, (_, role) in enumerate(held) if role in {USAGE_ALONE, FINAL_WITH_USAGE}]
        comment = b": energy " + energy + b"\n\n"
        if places:
            event, role = held[places[-1]]
            held[places[-1]] = (with_usage_energy(event, energy), role)
        elif held:
            held.insert(len(held) - 1, (comment, NEUTRAL))
        else:
            held.append((comment, NEUTRAL))
        self._out.extend(event for event, _ in held)
        queue, self._queue = self._queue, deque()
        for event, role in queue:
            self.add(event, role)
        if self._ended:
            self._at_end()

    def drain(self) -> bytes:
        """Return the bytes that may be written now."""
        out, self._out = self._out, []
        return b"".join(out)

    def _release(self) -> None:
        self._out.extend(event for event, _ in self._held)
        self._held = []

    def _at_end(self) -> None:
        if self._energy:
            self.awaits_energy = True
            return
        self._release()
        if self._rest:
            self._out.append(self._rest)
            self._rest = b""
