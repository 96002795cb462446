"""Units of a job, by its state."""

from typing import Final

from proxy.api.jobs import JobState
from proxy.api.usage import count_or_none
from proxy.schema import Units

_MOST_SECONDS: Final = 1e6  # of video


def units_of(state: JobState) -> Units:
    """Return what a job produces, as far as its state shows it."""
    seconds = state.seconds
    return Units(
        pixels=state.pixels,
        frames=count_or_none(state.num_frames),
        steps=count_or_none(state.num_inference_steps),
        seconds=seconds if seconds is not None and 0.0 < seconds < _MOST_SECONDS else None,
    )
