"""Cached prompts: how much of a prompt the engine computed, where it does not report it.

Engines keep the KV cache of prompts that begin alike, and by default few of them report how much of a prompt
they found there. Two observations show it. How much of the prompt an earlier one began with (the relay
compares keyed hashes of its blocks) is usually what was cached. And a step that computes more prompt tokens
takes longer: where the steps up to a first token were longer or shorter than that
prompt explains, the prompt is changed until it explains them, within what is possible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Track
from proxy.core.reconstruct.bursts import Floats, Ints

REPORTED: Final = "reported"
ESTIMATED: Final = "estimated"
UNKNOWN: Final = "unknown"
_BLOCK: Final = 16  # tokens that engines cache or compute together (vLLM's default)
_PREFIX_DOUBT: Final = 0.05  # standard deviation of a prefix's tokens by its bytes, of these tokens
_SURE: Final = 3.0  # standard deviations beyond which the prefix was not what was cached
_LEAST: Final = 1.0  # the last token of a prompt is always computed


def cached_from(track: Track) -> str:
    """Return where the cached part of an ended request's prompt is known from."""
    if track.reported:  # the engine reported its steps
        return REPORTED
    if track.end is None or track.end.prompt_tokens is None:
        return UNKNOWN
    if track.end.cached_tokens is not None:
        return REPORTED
    return UNKNOWN if track.arrive.prefix_bytes is None and not track.prompt_doubt else ESTIMATED


def is_silent(track: Track) -> bool:
    """Return whether a prompt's length is known, and nothing of what was cached of it."""
    end = track.end
    if end is None or end.prompt_tokens is None or end.cached_tokens is not None:
        return False
    return track.arrive.prefix_bytes is None and not track.reported


def cached_tokens(track: Track, prompt: float) -> float:
    """Return how many of the ``prompt`` tokens were cached: as reported, else the prefix seen before."""
    end, arrive = track.end, track.arrive
    if end is not None and end.cached_tokens is not None:
        return float(end.cached_tokens)
    if not arrive.prefix_bytes or not arrive.prompt_bytes:
        return 0.0
    share = min(arrive.prefix_bytes / arrive.prompt_bytes, 1.0)
    return min(prompt * share // _BLOCK * _BLOCK, max(prompt - _LEAST, 0.0))


def doubts(tracks: Sequence[Track], cached: Floats) -> Floats:
    """Return the standard deviation of the cached tokens of each prompt, (R,): 0 where they are known."""
    known = [cached_from(t) != ESTIMATED or t.arrive.prefix_bytes is None for t in tracks]
    estimated = ~np.array(known, bool) & (cached > 0.0)
    return np.asarray(np.where(estimated, _BLOCK + _PREFIX_DOUBT * cached, 0.0))


@dataclass(frozen=True, slots=True)
class PromptSizes:
    """Prompts of a block, (P,) each.

    ``step``: of the first token; ``begin``: the first that it can have been computed in; ``tokens``: to
    compute by the prefix seen before, of standard deviation ``doubt`` (0: known); ``most``: of the prompt.
    """

    step: Ints
    begin: Ints
    tokens: Floats
    most: Floats
    doubt: Floats


@dataclass(frozen=True, slots=True)
class StepRoom:
    """Steps of a block, (B,) each.

    ``tokens``: of prompts that a step had time for, with standard deviation ``noise``; the most that it can
    have hidden where it is not ``visible``.
    """

    tokens: Floats
    visible: NDArray[np.bool_]
    noise: Floats

    def run(self, end: int, first: int) -> int:
        """Return where the unbroken run of visible steps up to ``end`` begins, at the earliest ``first``."""
        while end > first and self.visible[end - 1]:
            end -= 1
        return end


def computed(prompts: PromptSizes, steps: StepRoom) -> tuple[Floats, Floats]:
    """Return how many tokens of each prompt were computed, and their standard deviation, (P,) each.

    Prompts with their first token in one step are a group. The room of a group is that of the steps after the
    last group's, less what the next group needs of it: an engine begins the next prompt in what is left of a
    step's budget. So the groups are passed from the last to the first.
    """
    found, unsure = prompts.tokens.copy(), prompts.doubt.copy()
    ends, group = np.unique(prompts.step, return_inverse=True)
    wanted = np.bincount(group, prompts.tokens)
    uncertain = np.bincount(group, prompts.doubt) > 0.0
    earliest = np.full(len(ends), len(steps.tokens), np.int64)
    np.minimum.at(earliest, group, prompts.begin)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(ends) + 1))
    needed = 0.0  # of the last step of a group, by the group after it
    for at in range(len(ends) - 1, -1, -1):
        end, first, before = int(ends[at]), int(earliest[at]), int(ends[at - 1]) if at else -1
        begin = steps.run(end, max(first, before + 1))
        surplus = float(steps.tokens[begin : end + 1].sum()) - needed - float(wanted[at])
        needed = 0.0
        if at and begin == before + 1 and first <= before and steps.visible[before]:
            needed = min(max(-surplus, 0.0), float(steps.tokens[before]))
            surplus += needed
        if uncertain[at] and (surplus < 0.0 or steps.visible[end]):
            rows = order[bounds[at] : bounds[at + 1]]
            rows = rows[prompts.doubt[rows] > 0.0]
            variance = float((steps.noise[begin : end + 1] ** 2).sum())
            found[rows], unsure[rows] = _changed(
                prompts.tokens[rows], prompts.most[rows], prompts.doubt[rows], surplus, variance
            )
    return found, unsure


def _changed(
    tokens: Floats, most: Floats, doubt: Floats, surplus: float, noise: float
) -> tuple[Floats, Floats]:
    """Return computed tokens, and their doubt, of prompts whose steps had time for ``surplus`` more.

    ``noise`` is the variance of ``surplus``. What the doubts explain is divided by them, as in a Kalman
    filter; more than that (a part was evicted, the prefix was forgotten) by what is possible.
    """
    variance = float((doubt**2).sum())
    if abs(surplus) <= _SURE * np.sqrt(variance + noise):
        part = doubt**2 / (variance + noise)
        unsure = doubt * np.sqrt(1.0 - part)
    else:
        possible = most - tokens if surplus > 0.0 else tokens - _LEAST
        part = possible / max(float(possible.sum()), 1.0)
        unsure = np.sqrt(surplus**2 * part * (1.0 - part) + noise * part**2)
    return np.clip(tokens + surplus * part, np.minimum(_LEAST, most), most), unsure
