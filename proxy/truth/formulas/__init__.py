"""Formulas of other tools, as policies of the truth kit: one file each, with its source.

A formula takes a :class:`~proxy.truth.view.View` and returns joules by request. None has an interval. They
are written from the description in their source and share no code with the tools; where a source leaves
something open, the docstring states how it was settled here. They are not policies of the proxy.
"""

from collections.abc import Callable
from typing import Final

from proxy.truth.formulas import (
    equal_split,
    output_average,
    overlap_weights,
    token_share,
    token_share_capped,
    weighted_tokens,
)
from proxy.truth.view import View

Formula = Callable[[View], dict[str, float]]

FORMULAS: Final[dict[str, Formula]] = {
    "equal-split": equal_split.attribute,
    "overlap-weights": overlap_weights.attribute,
    "token-share": token_share.attribute,
    "token-share-capped": token_share_capped.attribute,
    "output-average": output_average.attribute,
    "weighted-tokens": weighted_tokens.attribute,
}
SOURCES: Final[dict[str, str]] = {
    "equal-split": equal_split.SOURCE,
    "overlap-weights": overlap_weights.SOURCE,
    "token-share": token_share.SOURCE,
    "token-share-capped": token_share_capped.SOURCE,
    "output-average": output_average.SOURCE,
    "weighted-tokens": weighted_tokens.SOURCE,
}
