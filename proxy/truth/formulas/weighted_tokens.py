"""Weighted token share: as the token share, with constant weights for prompt and output tokens.

Source: the usual refinement of the token share: an output token counts more than a prompt token because it is
computed in a step of its own. Weights here are 1 and 4, a common ratio of list prices per token; there is no
constant that fits all models and loads.
"""

from typing import Final

from proxy.truth.view import View, normalised, split, tokens

SOURCE: Final = "token share, an output token weighs 4 prompt tokens (a common ratio of list prices)"
PROMPT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 4.0


def attribute(view: View) -> dict[str, float]:
    """Return the joules of each request."""
    weights = [tokens(view.on(w.device), w, PROMPT_WEIGHT, OUTPUT_WEIGHT) for w in view.windows]
    return split(view, [normalised(w) for w in weights])
