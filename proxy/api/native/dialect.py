"""A dialect: how to read one engine's own responses and streamed events.

The module of a dialect has a struct with the fields that are read, and a function that maps it to a ``Part``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.api.lenient import LenientDecoder
from proxy.api.scan import items
from proxy.api.usage import count_or_none


@dataclass(frozen=True, slots=True)
class Part:
    """Values of one event, or of one answer of a complete response.

    Attributes:
        index: Which of several answers to one request it belongs to.
        tokens: New output tokens in an event; None: the increase of ``output``.
        output: Output tokens of this answer so far, at its end all of them.
        prompt: Tokens of its prompt, cached ones included.
        cached: Tokens of its prompt that were read from a cache.
    """

    index: int = 0
    tokens: int | None = None
    output: int | None = None
    prompt: int | None = None
    cached: int | None = None
    finish_reason: str | None = None
    model: str | None = None
    response_id: str | None = None


class Dialect:
    """One engine's responses.

    Args:
        marks: Names of members of which each response and each event has at least one, and which no other
            API's responses have.
        fields: Struct of the members that are read; all optional.
        part: Returns the values of such a struct.
        headers: Names of response headers that hold the tokens of prompt and output, in lower case.
    """

    def __init__(
        self,
        marks: Sequence[str],
        fields: type[Any],
        part: Callable[[Any], Part],
        headers: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._marks: Final = tuple(f'"{mark}"'.encode() for mark in marks)
        self._decoder: Final = LenientDecoder(fields)
        self._part: Final = part
        self.names: Final = frozenset(name.encode() for name in fields.__struct_fields__)
        self.headers: Final = headers

    def matches(self, data: bytes) -> bool:
        """Return whether the document has one of the marks; in a text, their quotes would be escaped."""
        return any(mark in data for mark in self._marks)

    def read(self, data: bytes, unread: list[str]) -> list[Part]:
        """Return the parts of a document, several where it is an array; names not read go to ``unread``."""
        documents = items(data) if data.lstrip().startswith(b"[") else [data]
        found = [self._decoder.decode(document, unread) for document in documents or ()]
        parts = [self._part(fields) for fields in found if fields is not None]
        return parts if len(parts) < 2 else [_with_index(part, at) for at, part in enumerate(parts)]


class NativeCounts:
    """Counts of one response, summed over its answers; a field that is absent keeps its value."""

    __slots__ = ("_cached", "_outputs", "_prompts", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # output tokens by answer, by events
        self._outputs: dict[int, int] = {}  # the same, by the engine
        self._prompts: dict[int, int] = {}
        self._cached: dict[int, int] = {}

    def update(self, part: Part) -> int:
        """Add a part; return the number of output tokens that are new in it."""
        before = self._seen.get(part.index, 0)
        new = part.tokens
        if new is None:
            new = max((count_or_none(part.output) or 0) - before, 0)
        self._seen[part.index] = before + new
        for counts, number in (
            (self._outputs, part.output),
            (self._prompts, part.prompt),
            (self._cached, part.cached),
        ):
            count = count_or_none(number)
            if count is not None:
                counts[part.index] = count
        return new

    @property
    def output(self) -> int | None:
        """Output tokens; None unless the engine reported those of all answers."""
        return self._total(self._outputs)

    @property
    def prompt(self) -> int | None:
        """Tokens of the prompts; None where not known, or reported as 0."""
        return self._total(self._prompts) or None

    @property
    def cached(self) -> int | None:
        """Tokens of the prompts read from a cache; None where not known, or more than the prompts."""
        cached, prompt = self._total(self._cached), self.prompt
        return None if cached is not None and prompt is not None and cached > prompt else cached

    def _total(self, counts: dict[int, int]) -> int | None:
        return sum(counts.values()) if counts and counts.keys() >= self._seen.keys() else None


def _with_index(part: Part, index: int) -> Part:
    return Part(
        index,
        part.tokens,
        part.output,
        part.prompt,
        part.cached,
        part.finish_reason,
        part.model,
        part.response_id,
    )
