"""Equal split: the energy of a window divided equally by the number of requests that were open in it.

Source: the rule of landauer-gap, as described by others; its code could not be read here. A request counts in
each window in which it was open at any time. Idle windows stay unattributed.
"""

from typing import Final

from proxy.truth.view import View, normalised, overlaps, split

SOURCE: Final = "equal split over open requests (landauer-gap, by description)"


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    shares = [normalised((overlaps(view.on(w.device), w) > 0.0).astype(float)) for w in view.windows]
    return split(view, shares)
