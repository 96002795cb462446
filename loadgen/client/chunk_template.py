# Compiled by mypyc: see setup.py.
"""The short way of a stream's tokens: reads that are whole chunks like the one before but for their text.

A read like that needs no HTTP parser and no JSON (:mod:`proxy.api.chunks`): it is a stamp and a count, at a
few microseconds. Whatever does not compare goes the long way, which may find the lane again.
"""

from proxy.api.chunks import event_in, match_chunk, template_of


class Lane:
    """Counts tokens into ``outputs_ns`` and ``counts``, the stamps of reads and what each carried."""

    __slots__ = ("_after", "_before", "_counts", "_outputs")

    def __init__(self, shape: tuple[bytes, bytes], outputs_ns: list[int], counts: list[int]) -> None:
        self._before, self._after = shape
        self._outputs, self._counts = outputs_ns, counts

    def take(self, data: bytes, t_ns: int) -> bool:
        """Count the tokens of a read that begins a chunk; false, and nothing done, where it is not alike."""
        tokens = match_chunk(data, self._before, self._after)
        if not tokens:
            return False
        self._outputs.append(t_ns)
        self._counts.append(tokens)
        return True


def lane_of(data: bytes, outputs_ns: list[int], counts: list[int]) -> Lane | None:
    """The lane of a read that was one whole chunk and brought one token; None where it cannot be followed."""
    event = event_in(data)
    shape = template_of(event) if event is not None else None
    return None if shape is None else Lane(shape, outputs_ns, counts)
