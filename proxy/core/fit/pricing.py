"""Prices of a step's seconds: how much of the time a step took each request in it owes.

The time of a step is divided fairly (``fairness``) by its fitted form (``step_time``), and scaled to the
length that was seen: energy follows the real duration, whatever held a step up.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.work import PARTS, Entries, Floats
from proxy.core.fit.fairness import fair_seconds
from proxy.core.fit.step_time import StepTime, StepTimes

# Published shape, not scale: Llama-3.1-8B on an H100 (ML.ENERGY v3, arXiv 2601.22076), as the time of a sum.
PRIOR_TIME: Final = StepTime(overhead=1e-3, weights=5e-3, context=2.2e-8, decode=4e-5, prefill=3e-5)
_FAR: Final = 1.5  # times longer or shorter than its work takes
_MULTIPLE: Final = 0.1  # distance from a multiple of that, up to which several steps are taken to be in one
_MOST_STEPS: Final = 8.5
_FEW_STREAMS: Final = 24.0  # with more, some stream shows a chunk in nearly every step
_CLEAR: Final = 0.004  # residual of step times up to which the length of each step is believed,
_BLURRED: Final = 0.03  # and from which it is not: the network delays chunks by more than steps differ


def prior_time(seconds: float, rows: Floats) -> StepTime:
    """Return the published shape, scaled so that steps (B, 3) take ``seconds`` in total."""
    expected = float(PRIOR_TIME.seconds(*rows.T).sum())
    scale = seconds / expected if expected > 0.0 and seconds > 0.0 else 1.0
    return StepTime(
        PRIOR_TIME.overhead * scale,
        PRIOR_TIME.weights * scale,
        PRIOR_TIME.context * scale,
        PRIOR_TIME.decode * scale,
        PRIOR_TIME.prefill * scale,
    )


def priced(
    times: StepTimes,
    took: Floats,
    decoding: Entries,
    prompts: Entries,
    unseen: Sequence[Entries],
    learn: NDArray[np.bool_] | None = None,
) -> tuple[list[Entries], Floats]:
    """Give the entries of steps their fair seconds.

    Args:
        times: what was learned of the engine's steps.
        took: their lengths in seconds, (B,).
        decoding: who decoded in them.
        prompts: whose prompt was computed in them, with the context it read.
        unseen: requests of which nothing was read, spread over their lives.
        learn: which steps to learn from first, (B,); None: they were learned from already.

    Returns:
        The entries, prompts with their seconds, and the prices of a unit of each part in each step, (B, 4).
    """
    count = len(took)
    seen = [decoding, *unseen]
    streams, context, spread = (_total(seen, part, count) for part in ("decode", "context", "prefill"))
    assert prompts.prefill is not None
    assert prompts.context is not None
    read, computed = (
        np.bincount(prompts.cell, x, minlength=count) for x in (prompts.context, prompts.prefill)
    )
    rows = np.stack([streams, context + read, spread + computed], axis=1)
    if learn is not None and learn.any():
        times.learn(rows[learn], took[learn])
    time = times.time or prior_time(float(took.sum()), rows)
    fair = fair_seconds(time, streams, context, spread, prompts.cell, prompts.prefill, prompts.context)
    fixed = time.overhead + time.weights
    explained = fixed + fair.decode * streams + fair.context * context + fair.prefill * spread
    explained += np.bincount(prompts.cell, fair.prompt, minlength=count)
    scale = took / np.maximum(explained, 1e-9)
    if times.time is not None:
        scale = _believed(scale, streams, time.residual)
    prices = (
        np.stack([np.full(count, fixed), fair.decode, fair.context, fair.prefill], axis=1) * scale[:, None]
    )
    # The seconds of a prompt include reading its context, which is priced as an amount of context, too.
    own = fair.prompt * scale[prompts.cell] - prices[prompts.cell, 2] * prompts.context
    return [decoding, replace(prompts, prefill_seconds=np.maximum(own, 0.0)), *unseen], prices


def _total(entries: Sequence[Entries], part: str, steps: int) -> Floats:
    """Return the amount of a part in each step, (B,)."""
    found = np.zeros(steps)
    for one in entries:
        values = one.columns()[PARTS.index(part)]
        if values is not None:
            found += np.bincount(one.cell, values, minlength=steps)
    return found


def _believed(scale: Floats, streams: Floats, residual: float) -> Floats:
    """Return how far the seen lengths of steps are believed, (B,), as factors of what their work takes.

    A step that its work does not explain at all holds a silence, or chunks that the network held back, unless
    it is a multiple: then no stream showed a chunk in the steps between (chunks of several tokens, few
    streams).
    """
    multiple = np.abs(scale - np.round(scale)) < _MULTIPLE
    several = multiple & (scale < _MOST_STEPS) & (streams < _FEW_STREAMS)
    near = (scale > 1.0 / _FAR) & ((scale < _FAR) | several)
    blurred = np.clip((residual - _CLEAR) / (_BLURRED - _CLEAR), 0.0, 1.0)
    return np.asarray(np.where(near, scale, 1.0) ** (1.0 - blurred))
