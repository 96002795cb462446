"""Cells: the requests of a block in columns, and its time as cells of work.

A cell is an engine's step, or a silence: time in which requests are in the engine and nothing is seen of
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Role, Track
from proxy.core.activity.work import PARTS, Entries, Work
from proxy.core.fit.step_time import StepTimes
from proxy.core.numerics.order_statistics import distinct
from proxy.core.reconstruct.bursts import Floats, Ints
from proxy.core.reconstruct.cached import cached_tokens, doubts

_DEFAULT_STEP_SECONDS: Final = 0.02
_DEFAULT_PROMPT_TOKENS: Final = 500.0  # of a chat, until a request reports its own
_MOST_SAMPLES: Final = 128  # answers in one request that are kept apart
_LEAST_CELL_NS: Final = 1000  # shorter ones would drown in the rounding of sums over hours


@dataclass(slots=True)
class EngineProfile:
    """Estimates for one engine where a timeline is silent: its pace, its usual prompt, its step times."""

    step_seconds: float = _DEFAULT_STEP_SECONDS
    gap_seconds: float = 0.3 * _DEFAULT_STEP_SECONDS
    prompt_tokens: float = _DEFAULT_PROMPT_TOKENS
    prompts: int = 0
    times: StepTimes = field(default_factory=StepTimes)

    def see_prompt(self, tokens: int) -> None:
        """Learn from a request that reported its prompt."""
        self.prompts += 1
        self.prompt_tokens += (tokens - self.prompt_tokens) / min(self.prompts, 200)


@dataclass(frozen=True, slots=True)
class Requests:
    """Columns of the tracks of a block, (R,) each; times in seconds after the block's start."""

    start: Floats
    end: Floats
    first: Floats  # NaN: no output yet
    prompt: Floats  # all of it: the context a decode step reads
    computed: Floats  # of it, not cached: what prefill computes
    doubt: Floats  # standard deviation of ``computed`` where the engine did not report what was cached
    reported: Floats  # 1 where the engine reported it, 0 where the prompt is a guess
    before: Floats  # tokens emitted before the block's events
    samples: Ints  # answers in one request


def columns(
    group: Group, tracks: Sequence[Track], start_ns: int, end_ns: int, profile: EngineProfile
) -> Requests:
    """Return the tracks of [start_ns, end_ns) in columns."""
    slots = np.array([t.slot for t in tracks], np.int64)
    streams = group.streams
    prompts = [t.end.prompt_tokens if t.end else None for t in tracks]
    reported = np.array([p is not None for p in prompts])
    prompt = np.array([profile.prompt_tokens if p is None else float(p) for p in prompts])
    first = streams.first_ns[slots]
    begin, finish = streams.start_ns[slots], streams.end_ns[slots]
    if group.role is Role.PREFILL:
        finish = np.where(first < 0, finish, np.minimum(first, finish))
    elif group.role is Role.DECODE:
        begin = np.where(first < 0, finish, np.minimum(first, finish))
    cached = np.array([cached_tokens(t, p) for t, p in zip(tracks, prompt.tolist(), strict=True)])
    return Requests(
        start=(begin - start_ns) / 1e9,
        end=np.minimum(finish - start_ns, end_ns - start_ns) / 1e9,
        first=np.where(first < 0, np.nan, (first - start_ns) / 1e9),
        prompt=prompt,
        computed=np.maximum(prompt - cached, 1.0),
        doubt=doubts(tracks, cached),
        reported=reported.astype(float),
        before=streams.forgotten[slots].astype(float),
        samples=np.array([min(max(t.arrive.samples or 1, 1), _MOST_SAMPLES) for t in tracks], np.int64),
    )


def with_silence(
    requests: Requests,
    begins: Floats,
    stamps: Floats,
    entries: Sequence[Entries],
    prices: Floats,
    since: Floats,
    start_ns: int,
    end_ns: int,
    profile: EngineProfile,
    unread: NDArray[np.bool_],
    unprompted: NDArray[np.bool_] | None = None,
) -> Work:
    """Steps as cells, and between them a cell for any time in which requests were silent.

    ``prices`` (B, 4): fair seconds of a unit of each part in each step. ``since`` (B,): when requests began
    to wait for each step: until it began the device computed for others, and no request is charged for that.
    """
    length = (end_ns - start_ns) / 1e9
    inside = (requests.start < length) & (requests.end > 0.0)
    knots = distinct(
        np.concatenate([since, stamps, requests.start[inside], requests.end[inside], [0.0, length]])
    )
    knots = knots[(knots >= 0.0) & (knots <= length)]
    left, right = knots[:-1], knots[1:]
    middle = 0.5 * (left + right)
    step = np.searchsorted(since, middle, side="right") - 1
    in_step = (step >= 0) & (middle < stamps[step]) if len(stamps) else np.zeros(len(left), bool)
    alive = np.searchsorted(np.sort(requests.start), middle) - np.searchsorted(np.sort(requests.end), middle)
    quiet = ~in_step & (alive > 0)
    left, right, alive = left[quiet], right[quiet], alive[quiet]
    begin, end = np.concatenate([begins, left]), np.concatenate([stamps, right])
    order = np.argsort(begin, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    silent = np.concatenate([np.zeros(len(stamps)), (right - left) / profile.step_seconds])
    members = np.concatenate([np.zeros(len(stamps)), alive])
    waited = np.zeros((len(left), len(PARTS)))
    waited[:, 0] = profile.step_seconds
    begin, end = begin[order], end[order]
    cell_start, cell_end = _disjoint(np.round(begin * 1e9), np.round(end * 1e9))
    first = np.searchsorted(begin, requests.start, side="left")
    last = np.maximum(np.searchsorted(begin, requests.end, side="left"), first)
    return Work(
        requests=len(requests.start),
        cell_start=start_ns + cell_start,
        cell_end=start_ns + cell_end,
        shared=silent[order],
        members=members[order],
        span_first=first,
        span_last=last,
        entries=tuple(replace(e, cell=place[e.cell]) for e in entries),
        prices=np.concatenate([prices, waited])[order],
        unread=unread if unread.any() else None,
        unprompted=unprompted if unprompted is not None and unprompted.any() else None,
    )


def _disjoint(start: Floats, end: Floats) -> tuple[Ints, Ints]:
    """Return cells in integer nanoseconds, none empty, none over the next: each joule is shared once."""
    least = _LEAST_CELL_NS * np.arange(1, len(end) + 1, dtype=np.int64)
    starts = start.astype(np.int64)
    ends = np.maximum(end.astype(np.int64), starts + _LEAST_CELL_NS)
    ends = np.maximum.accumulate(ends - least) + least
    starts[1:] = np.maximum(starts[1:], ends[:-1])
    return starts, ends
