"""Find real measurements and captures, beside the checkout or by a variable; tests skip without them."""

import os
from pathlib import Path

_SHARED = Path(__file__).parents[2] / "shared"


def beside(variable: str, name: str) -> Path:
    """Return a folder, which may not exist."""
    return Path(os.environ.get(variable) or _SHARED / name)
