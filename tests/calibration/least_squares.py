"""Non-negative fits of relative errors: constants of physics, from points of very different size."""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_ROUNDS: Final = 40
_FLOOR: Final = 0.01  # errors below one percent weigh alike


def fit(terms: Floats, values: Floats) -> Floats:
    """``x >= 0`` that makes ``terms @ x`` close to ``values`` in mean absolute relative error.

    ``terms`` is points x constants, ``values`` positive. Iteratively reweighted least squares; a constant
    that would be negative is left out (0), the most negative first.
    """
    relative = terms / values[:, None]
    size = np.abs(relative).max(axis=0)
    used = [int(i) for i in np.flatnonzero(size > 0)]
    found = np.zeros(terms.shape[1])
    while used:
        scaled = relative[:, used] / size[used]
        solution = _robust(scaled)
        worst = int(np.argmin(solution))
        if solution[worst] >= 0:
            found[used] = solution / size[used]
            break
        del used[worst]
    return found


def _robust(scaled: Floats) -> Floats:
    """``x`` with ``scaled @ x`` close to 1, in mean absolute error."""
    weights = np.ones(len(scaled))
    solution: Floats = np.zeros(scaled.shape[1])
    for _ in range(_ROUNDS):
        solution = np.asarray(np.linalg.lstsq(scaled * weights[:, None], weights, rcond=1e-10)[0], float)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(scaled @ solution - 1.0), _FLOOR))
    return solution


def error(terms: Floats, values: Floats, constants: Floats) -> float:
    """Mean absolute relative error."""
    return float(np.abs(terms @ constants / values - 1.0).mean())
