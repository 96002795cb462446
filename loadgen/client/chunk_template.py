# Compiled by mypyc: see setup.py.
"""Fast path of a stream: count the tokens of chunks that repeat the chunk before except for their text.

A read that consists of such chunks needs no HTTP parser and no JSON decoder (:mod:`proxy.api.chunks`): it
costs one comparison, one stamp and one count, a few microseconds. A read that does not match goes through
the parser, which may learn a new template from it.
"""

from proxy.api.chunks import event_in, match_chunk, template_of


class ChunkTemplate:
    """The constant bytes before and after the text of a chunk.

    Matching reads are counted into ``outputs_ns`` and ``counts``: the stamp of each read and the number of
    tokens in it.
    """

    __slots__ = ("_after", "_before", "_counts", "_outputs")

    def __init__(self, shape: tuple[bytes, bytes], outputs_ns: list[int], counts: list[int]) -> None:
        self._before, self._after = shape
        self._outputs, self._counts = outputs_ns, counts

    def match(self, data: bytes, t_ns: int) -> bool:
        """Count the tokens of a read that begins at a chunk boundary.

        Returns False, without any effect, if the read has anything but chunks of this template.
        """
        tokens = match_chunk(data, self._before, self._after)
        if not tokens:
            return False
        self._outputs.append(t_ns)
        self._counts.append(tokens)
        return True


def learn_template(data: bytes, outputs_ns: list[int], counts: list[int]) -> ChunkTemplate | None:
    """Return the template of a read that was one complete chunk with one token; None if it has none."""
    event = event_in(data)
    shape = template_of(event) if event is not None else None
    return None if shape is None else ChunkTemplate(shape, outputs_ns, counts)
