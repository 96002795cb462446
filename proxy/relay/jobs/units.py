"""Units of a job, by its state."""

from typing import Final

from proxy.api.jobs import JobState
from proxy.api.usage import count_or_none
from proxy.schema import Units

_MOST_SECONDS: Final = 1e6  # of video


def units_of(state: JobState, known: Units | None = None) -> Units:
    """Return what a job produces, as far as its state shows it, else as was ``known`` of it before.

    A zero is a placeholder of a job that has not begun.
    """
    before = known or Units()
    seconds = state.seconds if state.seconds is not None and 0.0 < state.seconds < _MOST_SECONDS else None
    return Units(
        images=before.images,
        pixels=state.pixels or before.pixels,
        frames=count_or_none(state.num_frames) or before.frames,
        steps=count_or_none(state.num_inference_steps) or before.steps,
        seconds=seconds or before.seconds,
    )
