"""Real measurements and captures: beside the checkout, or where a variable says; tests skip without."""

import os
from pathlib import Path

_SHARED = Path(__file__).parents[2] / "shared"


def beside(variable: str, name: str) -> Path:
    """A folder that may not be there."""
    return Path(os.environ.get(variable) or _SHARED / name)
