"""Capped token share: the energy while a request is open, times its share of the tokens in flight, capped.

Source: Neuralwatt's pricing, as described at
https://inferencehub.org/blog/energy-based-inference-pricing-2026:
``energy = server_energy * min(token_pool_ratio, attribution_cap)`` with a cap of about 25 % on servers with
one GPU and 7-10 % with several. Settled here: the ratio is taken in each window, over the requests that are
open in it, by their prompt and output tokens; the cap is 25 % on one device and 10 % on several.
"""

from typing import Final

import numpy as np

from proxy.truth.view import View, normalised, overlaps, split

SOURCE: Final = (
    "Neuralwatt, [as described](https://inferencehub.org/blog/energy-based-inference-pricing-2026); "
    "cap 25 % on one device, 10 % on several"
)
CAP: Final = 0.25
CAP_OF_SEVERAL: Final = 0.10


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    cap = CAP if len(view.windows) == 1 else CAP_OF_SEVERAL
    shares = []
    for windows in view.windows:
        requests = view.on(windows.device)
        seconds = overlaps(requests, windows)
        pool = np.array([float(r.prompt + r.output) for r in requests])[:, None] * (seconds > 0.0)
        covered = seconds / np.diff(windows.edges)  # at its ends a request is open for a part of a window
        shares.append(np.minimum(normalised(pool), cap) * covered)
    return split(view, shares)
