"""Sizes: how many tokens each chunk held, where the proxy could only count chunks.

Servers that fall behind merge tokens into one chunk, speculative decoding makes several at once; a proxy that
does not tokenize sees one chunk. The usage of the answer tells how many tokens are missing, and the steps
that passed since the stream's last chunk tell where.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Track
from proxy.core.reconstruct.bursts import Floats, Ints


@dataclass(frozen=True, slots=True)
class Chunks:
    """Of each chunk (E,): tokens as counted, as expected from its answer's usage, and which it is to be."""

    counted: Floats
    expected: Floats
    uncertain: NDArray[np.bool_]


def missing_tokens(group: Group, tracks: Sequence[Track]) -> Floats:
    """Tokens that each answer's chunks do not account for, (R,); NaN where the answer did not report."""
    slots = np.array([t.slot for t in tracks], np.int64)
    seen, chunks = group.streams.tokens[slots], group.streams.chunks[slots]
    counted = np.where(seen == 0, chunks, seen)
    totals = [t.end.completion_tokens if t.end else None for t in tracks]
    total = np.array([np.nan if n is None else float(n) for n in totals])
    return np.asarray(np.maximum(total - counted, 0.0), dtype=float)


def chunks_of(tokens: Ints, request: Ints, missing: Floats, chunks: Ints) -> Chunks:
    """What is known of each chunk; ``missing`` and ``chunks`` of the answers, (R,) each."""
    counted = np.maximum(tokens, 1).astype(float)
    lacking = missing > 0.0
    each = np.where(lacking, missing, 0.0) / np.maximum(chunks, 1)
    uncertain = (tokens < 0) | lacking[request]
    return Chunks(counted, np.where(uncertain, counted + each[request], counted), uncertain)


def sized(held: Chunks, request: Ints, burst: Ints, previous: Ints) -> Floats:
    """Tokens of each chunk, (E,): what was counted, and of what is missing as many as steps passed unseen.

    Where no step passed unseen, evenly.
    """
    missing = np.bincount(request, held.expected - held.counted)
    if not len(missing) or not missing.any():
        return held.counted
    apart = np.where(previous >= 0, burst - burst[previous], 1)
    unseen = np.maximum(apart - held.counted, 0.0)
    passed = np.bincount(request, unseen)
    weight = np.where(passed[request] > 0.0, unseen, 1.0)
    total = np.bincount(request, weight)
    return np.asarray(held.counted + (missing / np.maximum(total, 1.0))[request] * weight, dtype=float)
