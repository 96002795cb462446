"""A clock for tests that moves a little with each look, and jumps when waited for."""

from proxy.units import NS_PER_SECOND

STEP_NS = 20_000  # what one look at the clock costs


class Ticking:
    """``wait`` returns True (stop) once ``end_ns`` is reached."""

    def __init__(self, end_ns: int = 1 << 62) -> None:
        self.now_ns = NS_PER_SECOND
        self.end_ns = end_ns

    def __call__(self) -> int:
        self.now_ns += STEP_NS
        return self.now_ns

    def wait(self, deadline_ns: int) -> bool:
        self.now_ns = max(self.now_ns, deadline_ns)
        return self.now_ns >= self.end_ns
