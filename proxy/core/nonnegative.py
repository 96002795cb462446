"""Non-negative least squares on normal equations, for the small fits of the core."""

import numpy as np
from numpy.typing import NDArray


def nonnegative(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise x'Gx/2 - m'x over x >= 0 by active sets.

    Source: Lawson and Hanson, *Solving Least Squares Problems*, chapter 23.

    Args:
        gram: G, (n, n), positive definite; n is small.
        moment: m, (n,).

    Returns:
        x, (n,).
    """
    size = len(moment)
    free = np.ones(size, bool)
    for _ in range(3 * size):
        solution = np.zeros(size)
        if free.any():
            solution[free] = np.linalg.solve(gram[np.ix_(free, free)], moment[free])
        if (solution[free] < 0.0).any():
            free &= solution > 0.0
            continue
        pull = moment - gram @ solution
        worst = int(np.argmax(np.where(free, -np.inf, pull)))
        if free[worst] or pull[worst] <= 1e-12 * abs(moment[worst]):
            return solution
        free[worst] = True
    return np.clip(solution, 0.0, None)
