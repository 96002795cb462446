"""Non-negative least squares on normal equations, for the small fits of the core."""

import numpy as np
from numpy.typing import NDArray


def nonnegative(
    gram: NDArray[np.float64], moment: NDArray[np.float64], guess: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Minimise x'Gx/2 - m'x over x >= 0 by active sets.

    Source: Lawson and Hanson, *Solving Least Squares Problems*, chapter 23.

    Args:
        gram: G, (n, n), positive definite; n is small.
        moment: m, (n,).
        guess: (n,); which of its terms are positive is where the search begins. None: all are.

    Returns:
        x, (n,).
    """
    size = len(moment)
    free = np.ones(size, bool) if guess is None else guess > 0.0
    for _ in range(3 * size):
        everything = free.all()
        solution = np.zeros(size)
        if everything:
            solution[:] = np.linalg.solve(gram, moment)
        else:
            solution[free] = np.linalg.solve(gram[free][:, free], moment[free])
        if (solution < 0.0).any():
            free &= solution > 0.0
            continue
        if everything:
            return solution
        pull = moment - gram @ solution
        pull[free] = -np.inf
        worst = int(pull.argmax())
        if pull[worst] <= 1e-12 * abs(moment[worst]):
            return solution
        free[worst] = True
    return np.clip(solution, 0.0, None)
