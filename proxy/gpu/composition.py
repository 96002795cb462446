"""Compositions: who is in a step of the engine, by kind of work.

Requests with the same work in a step are of one kind, so that a coalition is a number of members of each
kind.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

# Tokens of made-up prompts differ, because equal rows would toggle fewer bits of the device.
_VOCABULARY = 500


def tokens(count: int, start: int = 0) -> list[int]:
    """Return ``count`` token numbers that all models have."""
    return [(start * 31 + i) % _VOCABULARY for i in range(count)]


class Work(NamedTuple):
    """The work of one request in one step: ``tokens`` computed on top of ``context`` tokens in the cache.

    ``tokens`` is 1 for decoding, the length of the chunk for a prompt.
    """

    tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Tokens of one request in a step, which follow ``context`` tokens in the cache slot ``slot``."""

    slot: int
    tokens: Sequence[int]
    context: int


@dataclass(frozen=True, slots=True)
class Composition:
    """The kinds of work in a step and how many requests have each; sorted, so that equal ones are equal."""

    kinds: tuple[Work, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, works: Iterable[Work]) -> "Composition":
        """Return the composition of a step."""
        found = sorted(Counter(works).items())
        return cls(tuple(work for work, _ in found), tuple(count for _, count in found))

    def coalition(self, counts: tuple[int, ...]) -> "Composition":
        """Return the step of only so many members of each kind; kinds without members are left out."""
        pairs = [(kind, count) for kind, count in zip(self.kinds, counts, strict=True) if count]
        return replace(self, kinds=tuple(k for k, _ in pairs), counts=tuple(c for _, c in pairs))

    def works(self) -> list[Work]:
        """Return the work of each member."""
        return [k for k, count in zip(self.kinds, self.counts, strict=True) for _ in range(count)]

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(work.tokens * count for work, count in zip(self.kinds, self.counts, strict=True))

    @property
    def context(self) -> int:
        """Tokens of KV cache that are read."""
        return sum(work.context * count for work, count in zip(self.kinds, self.counts, strict=True))


def in_grain(work: Work, grain: int) -> Work:
    """Return the work with the context of a decoding request rounded to the middle of ``grain`` tokens.

    Contexts grow by one token a step; without rounding every step would have to be measured on its own.
    """
    if work.tokens > 1:
        return work
    return Work(1, work.context // grain * grain + grain // 2)
