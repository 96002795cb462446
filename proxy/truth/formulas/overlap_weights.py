"""Overlap: the energy of a window in proportion to the time that each request was open in it.

Source: CodeCarbon, pull request 1380 (https://github.com/mlco2/codecarbon/pull/1380): each sampling window is
split across the requests in flight, weighted by their overlap and normalised by the sum of the weights;
windows with nothing in flight are unattributed.
"""

from typing import Final

from proxy.truth.view import View, normalised, overlaps, split

SOURCE: Final = "[CodeCarbon pull request 1380](https://github.com/mlco2/codecarbon/pull/1380)"


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    return split(view, [normalised(overlaps(view.on(w.device), w)) for w in view.windows])
