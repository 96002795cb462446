"""Streams of one engine whose chunks the network delays."""

import numpy as np

from proxy.core.reconstruct.bursts import Floats, Ints, by_stream, previous_of_stream


def blurry(
    streams: int, steps: int, step_s: float, delay_s: float, seed: int = 0
) -> tuple[Floats, Ints, Ints, Ints]:
    """Stamps, streams, predecessors and true steps of events, (E,) each; stamps in order.

    Stream i begins 3 i steps in and is delayed by the absolute value of a normal variate each time.
    """
    rng = np.random.default_rng(seed)
    t, stream, step = [], [], []
    for index in range(streams):
        own = np.arange(3 * index, steps)
        delays = np.abs(rng.normal(0.0, delay_s, len(own)))
        shown = np.maximum.accumulate((own + 1) * step_s + delays + np.arange(len(own)) * 1e-9)
        t.append(shown)
        stream.append(np.full(len(own), index))
        step.append(own)
    order = np.argsort(np.concatenate(t), kind="stable")
    of = np.concatenate(stream)[order]
    return (
        np.concatenate(t)[order],
        of,
        previous_of_stream(of, by_stream(of)),
        np.concatenate(step)[order],
    )
