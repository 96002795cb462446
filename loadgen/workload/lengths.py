"""Lengths of prompts and responses in tokens: fixed, distributed, or from a trace. Pure and seeded."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.inputs import parse_number, parse_whole

_SHAPE = "512, uniform:100..500 or lognormal:MEDIAN,SIGMA (lognormal:300,0.8)"
_LARGEST = 1_000_000


class Length(Protocol):
    """A distribution of token counts."""

    def draw(self, rng: random.Random) -> int:
        """Return one count, at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always ``tokens``."""

    tokens: int

    def draw(self, rng: random.Random) -> int:
        """Return the count; ``rng`` is not used."""
        del rng
        return self.tokens


@dataclass(frozen=True, slots=True)
class Uniform:
    """Integers from ``low`` to ``high``, inclusive."""

    low: int
    high: int

    def draw(self, rng: random.Random) -> int:
        """Return one count."""
        return rng.randint(self.low, self.high)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """exp(normal(ln median, sigma)), rounded, at least 1."""

    median: float
    sigma: float

    def draw(self, rng: random.Random) -> int:
        """Return one count."""
        return max(1, min(_LARGEST, round(rng.lognormvariate(math.log(self.median), self.sigma))))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt and response lengths of requests by index; those in ``pairs`` (of a trace) come first."""

    prompt: Length
    answer: Length
    pairs: Sequence[tuple[int, int]] = ()

    @property
    def drawn(self) -> bool:
        """Whether any length is random."""
        return not (isinstance(self.prompt, Fixed) and isinstance(self.answer, Fixed))

    def of(self, index: int, rng: random.Random) -> tuple[int, int]:
        """Return prompt and response tokens of request ``index``."""
        if index < len(self.pairs):
            return self.pairs[index]
        return self.prompt.draw(rng), self.answer.draw(rng)


def parse_length(text: str, option: str) -> Length:
    """Parse a length distribution; raises ``ValueError`` with the option and the valid forms."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "uniform":
            low, high = (parse_whole(part) for part in rest.split(".."))
            if 1 <= low <= high <= _LARGEST:
                return Uniform(low, high)
        elif kind == "lognormal":
            median, sigma = (parse_number(part) for part in rest.split(","))
            if 1 <= median <= _LARGEST and 0 <= sigma <= 5:
                return LogNormal(median, sigma)
        elif 1 <= (tokens := parse_whole(text)) <= _LARGEST:
            return Fixed(tokens)
    except ValueError:
        pass
    raise ValueError(f"{option} {text!r}: write {_SHAPE}")
