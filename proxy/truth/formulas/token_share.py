"""Token share: the energy of a window in proportion to the tokens that each request had in it.

Source: Aitra Meter, ADR-0003 "Proportional attribution" (https://github.com/aitra-ai/aitra-meter, docs/adr):
``namespace_energy = cluster_energy * (namespace_tokens / cluster_tokens)`` for each measurement window. Here
a request takes the place of a namespace, a window is the interval between two readings of the timeline, and
prompt and output tokens count alike, as in vLLM's counters.
"""

from typing import Final

from proxy.truth.view import View, normalised, split, tokens

SOURCE: Final = "[Aitra Meter ADR-0003](https://github.com/aitra-ai/aitra-meter), a request for a namespace"


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    return split(view, [normalised(tokens(view.on(w.device), w, 1.0, 1.0)) for w in view.windows])
