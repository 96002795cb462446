"""Engines that share a device: when a step began that had to wait for the steps of another engine.

Two engines on one device take turns. The time since an engine's last step then holds steps of the other,
whose chunks show when they ended. Engines that truly compute at once show chunks in each other's steps as
well, but there the times since the other's chunks are arbitrary. So the later beginning is not used where
it makes the steps arbitrary.
"""

from typing import Final

import numpy as np

from proxy.core.activity.tracks import Group
from proxy.core.numerics.order_statistics import median
from proxy.core.reconstruct.bursts import Floats

_LEAST_STEPS: Final = 20  # to compare; with fewer, engines are taken to take turns
_ARBITRARY: Final = 0.3  # relative spread: steps of one engine vary less, arbitrary times by about 0.5
_SHORTEST: Final = 1e-4  # seconds of a step


def after_neighbours(group: Group, start_ns: int, begins: Floats, stamps: Floats) -> Floats:
    """Return when each step began, given the chunks of the other engines on its devices.

    Args:
        group: the engine's requests; ``neighbours`` are the other engines'.
        start_ns: origin of the times.
        begins: since when each step can have run, in seconds, (B,).
        stamps: when each step ended, in seconds, (B,).

    Returns:
        The beginnings, (B,) seconds, none before ``begins``.
    """
    beside = [engine for neighbour in group.neighbours for engine in neighbour.engines or [neighbour]]
    others = [
        engine.outputs.t_ns
        for engine in beside
        if len(engine.outputs.t_ns) and not set(engine.devices).isdisjoint(group.devices)
    ]
    if not others or not len(stamps):
        return begins
    ends = (np.sort(np.concatenate(others)) - start_ns) / 1e9
    last = np.searchsorted(ends, stamps - _SHORTEST, side="right") - 1
    later = np.where(last >= 0, np.maximum(begins, ends[np.maximum(last, 0)]), begins)
    if len(stamps) >= _LEAST_STEPS and _spread(stamps - later) > max(_spread(stamps - begins), _ARBITRARY):
        return begins
    return later


def _spread(lengths: Floats) -> float:
    """Return the median absolute deviation of lengths, relative to their median."""
    usual = median(lengths)
    return median(np.abs(lengths - usual)) / max(usual, 1e-9)
